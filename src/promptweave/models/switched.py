"""What users switch on in diffusers: caches that skip layers, formats of storage, attention backends; and one lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from threading import RLock
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch import Tensor, nn

from promptweave.models.base import ModelError

Call = TypeVar("Call", bound=Callable[..., Any])
ORDINARY = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # formats that networks compute in
# Hooks that change where or how weights are kept, and nothing that a layer computes.
HARMLESS = {"group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading", "layerwise_casting",
            "peft_autocast_disable"}  # fmt: skip
CACHES = {  # by the beginning of a hook's name
    "faster_cache": "FasterCache", "fbc": "FirstBlockCache", "mag_cache": "MagCache",
    "pyramid_attention_broadcast": "PyramidAttentionBroadcast", "sea_cache": "SeaCache", "taylorseer": "TaylorSeer",
    "text_kv_cache": "TextKVCache", "layer_skip": "LayerSkip", "smoothed_energy": "SmoothedEnergyGuidance",
}  # fmt: skip
_locks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_making = RLock()
_stop: ContextVar[Callable[[], None] | None] = ContextVar("stop", default=None)


def _lock(network: Any) -> Any:
    with _making:
        return _locks.setdefault(network, RLock())


@contextmanager
def alone(network: Any) -> Iterator[None]:
    """Inside, no other thread is in a pass of this network, whose layers are changed for the time of a pass."""
    with _lock(network):
        yield


@contextmanager
def stoppable(stop: Callable[[], None]) -> Iterator[None]:
    """Inside, in this thread, `stop` is called before each pass of any network; what it raises ends the run there."""
    token = _stop.set(stop)
    try:
        yield
    finally:
        _stop.reset(token)


def one_at_a_time(method: Call) -> Call:
    """A method of a model, as a pass of its network that no other thread enters and that a `stop` may prevent."""

    @wraps(method)
    def locked(self: Any, *args: Any, **options: Any) -> Any:
        stop = _stop.get()
        if stop is not None:
            stop()
        with _lock(self.network):
            return method(self, *args, **options)

    return cast(Call, locked)


def is_compiled(network: Any) -> bool:
    """Whether torch.compile has a network."""
    return getattr(network, "_compiled_call_impl", None) is not None or hasattr(network, "_orig_mod")


def shown(network: Any, what: str) -> None:
    """Raise ValueError if a network is compiled, since hooks on its modules would not be called."""
    if is_compiled(network):
        raise ValueError(
            f"A control reads {what}, and a compiled network does not give access to them. Load the model without "
            "torch.compile for this control."
        )


def refuse_caches(network: nn.Module) -> None:
    """Raise ModelError if a cache skips layers of a network or uses their outputs again: edits would not reach them."""
    config = getattr(network, "_cache_config", None)
    found = "" if config is None else type(config).__name__.removesuffix("Config")
    if not found:
        hooked = (getattr(module, "_diffusers_hook", None) for module in network.modules())
        names = [name for registry in hooked if registry is not None for name in registry.hooks]
        foreign = [name for name in names if name not in HARMLESS]
        if not foreign:
            return
        found = next((called for begin, called in CACHES.items() if foreign[0].startswith(begin)), foreign[0])
    name = type(network).__name__
    part = "unet" if name.startswith("UNet") else "transformer"
    cure = (
        "Load the pipeline again without it." if config is None else f"Switch it off: pipeline.{part}.disable_cache()."
    )
    raise ModelError(
        f"Every attention layer must run in every step, and {found}, which is on in {name}, skips layers or uses their "
        f"outputs again. {cure}"
    )


class Formats:
    """The format that a network computes in, whatever its weights are stored in; looked up once for each format of its
    first weight."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self._known: dict[torch.dtype, torch.dtype] = {}

    @property
    def dtype(self) -> torch.dtype:
        """Raises ModelError if none can be found."""
        first = next(self.network.parameters()).dtype
        if first not in self._known:
            self._known[first] = self._computed()
        return self._known[first]

    def _computed(self) -> torch.dtype:
        """Layer-wise casting and GGUF say it; what other formats leave unquantised (norms, biases) has it."""
        for module in self.network.modules():
            casting = getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).get("layerwise_casting")
            if casting is not None:
                return casting.compute_dtype
        config = getattr(getattr(self.network, "hf_quantizer", None), "quantization_config", None)
        declared = getattr(config, "compute_dtype", None)
        if declared in ORDINARY:
            return declared
        kept = getattr(self.network, "_keep_in_fp32_modules", None) or ()
        weights = [(n, p.dtype) for n, p in self.network.named_parameters() if p.dtype in ORDINARY]
        usual = [dtype for name, dtype in weights if not any(part in name for part in kept)]
        if usual or weights:
            return usual[0] if usual else weights[0][1]
        stored = sorted({str(p.dtype).removeprefix("torch.") for p in self.network.parameters()})
        raise ModelError(
            f"A network must say what format it computes in. Received {type(self.network).__name__} with weights in "
            f"{', '.join(stored)} alone. Store its norms in bfloat16 or use diffusers' enable_layerwise_casting()."
        )


class Backend:
    """The attention kernel that was chosen in diffusers (`set_attention_backend`, DIFFUSERS_ATTN_BACKEND), called as
    PyTorch's own with [batch, heads, tokens, dim].

    What it cannot do, a bias or values of another width than the keys, PyTorch's own kernel does; `elsewhere` names it.
    """

    def __init__(self, chosen: AttentionBackendName) -> None:
        self.name = chosen.value
        self.chosen = chosen
        self.elsewhere: set[str] = set()

    def report(self) -> dict[str, Any]:
        """Its name, and what was computed by PyTorch's own kernel in its place."""
        return {"backend": self.name, "computed_by_pytorch": sorted(self.elsewhere)}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        if attn_mask is not None:
            self.elsewhere.add("a bias")
        elif v.shape[-1] != q.shape[-1]:
            self.elsewhere.add("values of another width")
        else:
            query, key, value = (x.transpose(1, 2) for x in (q, k, v))
            try:
                return dispatch_attention_fn(query, key, value, backend=self.chosen).transpose(1, 2)
            except (RuntimeError, ValueError, TypeError, ImportError, NotImplementedError) as error:
                raise ModelError(
                    f"The attention backend {self.name!r} failed on {q.dtype} on {q.device.type}, width {q.shape[-1]}: "
                    f"{str(error)[:200]} Choose another, or none: pipeline.transformer.reset_attention_backend()."
                ) from error
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)


_backends: dict[AttentionBackendName, Backend] = {}


def backend_of(processor: Any) -> Any:
    """The function that computes the attention of a layer with this processor: PyTorch's own or a `Backend`."""
    if not hasattr(processor, "_attention_backend"):
        return F.scaled_dot_product_attention
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry  # noqa: PLC2701 - there is no public way

    usual: Any = _AttentionBackendRegistry.get_active_backend()
    chosen = AttentionBackendName(processor._attention_backend or usual[0])
    if chosen is AttentionBackendName.NATIVE:
        return F.scaled_dot_product_attention
    return _backends.setdefault(chosen, Backend(chosen))


def kernels(network: nn.Module) -> dict[str, Any]:
    """The chosen backends of a network's layers as a report of the last run, {} for PyTorch's own."""
    chosen = _chosen(network)
    return {"attention": [each.report() for each in chosen]} if chosen else {}


def begin_run(network: nn.Module) -> None:
    """Let the report of the next run be about that run."""
    for each in _chosen(network):
        each.elsewhere.clear()


def _chosen(network: nn.Module) -> list[Backend]:
    found = {id(each): each for m in network.modules() if isinstance(each := backend_of(_processor(m)), Backend)}
    return list(found.values())


def _processor(module: nn.Module) -> Any:
    return getattr(module, "processor", None)

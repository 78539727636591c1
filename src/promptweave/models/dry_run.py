"""What a forward pass keeps for its gradient, counted without computing it: on the meta device, with shapes only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Fused(torch.autograd.Function):
    """Attention as fused kernels keep it: queries, keys, values, the output and one number for each query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError


class FusedAttention(TorchFunctionMode):
    """Attention is counted as `Fused`, whatever kernel the meta device would take."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return Fused.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class Kept:
    """The tensors that a forward pass keeps, each storage once, without the parameters.

    `total`: bytes. Under `checkpoint`, the function that a network of diffusers calls for each of its parts, the
    inputs of the parts are kept, and of their insides those of the largest part at a time (`largest`).
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.seen = {id_of(p): p.untyped_storage() for p in (*network.parameters(), *network.buffers())}
        self.total = self.largest = 0
        self._inside: list[int] | None = None

    def add(self, x: Tensor) -> Tensor:
        """Count a tensor; a storage stays referenced, so that no other takes its place."""
        if id_of(x) not in self.seen:
            self.seen[id_of(x)] = x.untyped_storage()
            if self._inside is None:
                self.total += x.untyped_storage().nbytes()
            else:
                self._inside.append(x.untyped_storage().nbytes())
        return x

    def checkpoint(self, part: Callable[..., Any], *inputs: Any) -> Any:
        """Run a part of the network."""
        for x in inputs:
            if isinstance(x, Tensor):
                self.add(x)
        self._inside = []
        try:
            return part(*inputs)
        finally:
            self.largest = max(self.largest, sum(self._inside))
            self._inside = None


def id_of(x: Tensor) -> int:
    """The identity of a tensor's storage."""
    return x.untyped_storage()._cdata


def kept_bytes(network: torch.nn.Module, call: Callable[[torch.nn.Module], Any], *, checkpointing: bool) -> int:
    """The bytes that a forward pass, `call(network)`, keeps for its gradient; the most at a time if checkpointing."""
    kept = Kept(network)
    module: Any = network
    if checkpointing:
        module.enable_gradient_checkpointing(gradient_checkpointing_func=kept.checkpoint)
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(kept.add, lambda x: x):
            call(network)
    finally:
        if checkpointing:
            module.disable_gradient_checkpointing()
    return kept.total + kept.largest


def without_weights(network: Any) -> Any:
    """A network of diffusers with the same layers, on the meta device."""
    real = getattr(network, "_orig_mod", network)  # of a compiled one
    with torch.device("meta"):
        made = type(real).from_config(dict(real.config))
    return made.to(real.dtype).eval().requires_grad_(False)

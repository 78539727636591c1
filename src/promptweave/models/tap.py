"""The attention processor that lets controls act between projection and output; a context manager installs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    AttnProcessorNPU,
    IPAdapterAttnProcessor,
    IPAdapterAttnProcessor2_0,
    IPAdapterXFormersAttnProcessor,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
    XLAFlashAttnProcessor2_0,
)
from torch import Tensor, nn

from promptweave.core.memory import Layer
from promptweave.core.routes import CALL, IDLE, Plan, Watched
from promptweave.core.site import Site
from promptweave.core.tapping import Tap
from promptweave.models.copies import ALL_DIFFERENT, Copies
from promptweave.models.planned import attention, plain

# All compute softmax(q k^T) v, as ours does: at once, in slices or by the kernels of a library or device.
PLAIN = (
    AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor, XFormersAttnProcessor, AttnProcessorNPU,
    XLAFlashAttnProcessor2_0,
)  # fmt: skip
# These add attention to the tokens of image prompts.
PICTURED = (IPAdapterAttnProcessor, IPAdapterAttnProcessor2_0, IPAdapterXFormersAttnProcessor)
CURES = {  # by a part of the processor's name
    "Fused": "Take its projections apart first: pipeline.unfuse_qkv_projections().",
    "LoRA": "Fuse it first: pipeline.fuse_lora().",
    "IPAdapter": "Unload it first: pipeline.unload_ip_adapter().",
}


class ForeignProcessor(ValueError):
    """Raised for an attention layer with an unknown processor, which ours would have to replace."""


class TapProcessor:
    """Attention of one layer under a tap. Attention to image prompts, if the old processor has it, is kept.

    `copies`: which rows of the layer's input are equal; unless they are edited, they are computed once. `before`: the
    processor in whose place it is.
    """

    tap: Tap
    copies: Copies | None = None
    plan: Plan | None = None  # what is known of the edit here, if the layer is one of those that `planned` serves

    def __init__(self, site: Site, before: Any) -> None:
        self.site, self.before = site, before
        self.pictured: Any = before if isinstance(before, PICTURED) else None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | tuple[Tensor, list[Tensor]] | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        plan, context, pictures = self.plan, encoder_hidden_states, []
        usual = self.copies is None and attention_mask is None and hidden_states.ndim == 3
        if plan is not None and plan is not CALL and usual and not isinstance(context, tuple):
            layer = None if context is None else self._remembered(attn, context)
            project = partial(self._keys, attn) if context is not None and isinstance(plan, Watched) else None
            return attention(attn, hidden_states, layer, plan, self.tap, self.site, project)
        if isinstance(context, tuple):
            context, pictures = context
            if self.pictured is None and pictures:
                raise ForeignProcessor(
                    f"Attention layer {self.site.path} has lost the processor that reads the image prompt. Switch "
                    "attention slicing off, and load the IP-Adapter again: pipeline.load_ip_adapter(...)."
                )
        residual, shape = hidden_states, hidden_states.shape
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if hidden_states.ndim == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        copies = self.copies
        x = hidden_states if copies is None else copies.once(hidden_states)
        layer = None if context is None else self._remembered(attn, context)
        q, k, v = self._project(attn, x, context) if layer is None else (self._queries(attn, x), layer.k, layer.v)
        output = None
        if plan is not IDLE:
            project = None if context is None else partial(self._keys, attn)
            all_rows = (q, k, v) if copies is None else [copies.all(x) for x in (q, k, v)]
            output = self.tap.attend(self.site, *all_rows, project=project, memory=layer)
        if output is not None and attention_mask is not None:
            raise ValueError(
                f"Attention under an attention mask cannot be edited. Received one in layer {self.site.name}. "
                "Run the model without a prompt mask, or leave this layer out of the edit."
            )
        output = self._plain(attn, q, k, v, attention_mask) if output is None else output
        if self.pictured is not None:
            output = output + self._to_pictures(attn, q, pictures)
        output = output.transpose(1, 2).flatten(2).to(q.dtype)
        for layer in attn.to_out or ():  # a projection and its dropout
            output = layer(output)
        if copies is not None and len(output) < len(hidden_states):
            output = copies.all(output)
        if len(shape) == 4:
            output = output.transpose(-1, -2).reshape(shape)
        if attn.residual_connection:
            output = output + residual
        return output if attn.rescale_output_factor == 1 else output / attn.rescale_output_factor

    @staticmethod
    def _plain(attn: Attention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            prepared = attn.prepare_attention_mask(mask, k.shape[2], len(k))
            mask = prepared.view(len(k), attn.heads, -1, prepared.shape[-1])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def _to_pictures(self, attn: Attention, q: Tensor, pictures: list[Tensor]) -> Tensor | int:
        """Attention to the tokens of image prompts, with the layer's queries and the adapters' own weights."""
        output: Tensor | int = 0
        parts = zip(pictures, self.pictured.scale, self.pictured.to_k_ip, self.pictured.to_v_ip, strict=True)
        for tokens, scale, to_k, to_v in parts:  # tokens of an adapter's images [rows, images, tokens, dim]
            k, v = (y.view(len(q), -1, attn.heads, q.shape[-1]).transpose(1, 2) for y in (to_k(tokens), to_v(tokens)))
            output = output + scale * F.scaled_dot_product_attention(q, k, v)
        return output

    def _project(self, attn: Attention, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if context is None:
            return self._queries(attn, x), self._keys(attn, x, normed=False), self._values(attn, x)
        return self._queries(attn, x), *self._of_text(attn, context)

    def _remembered(self, attn: Attention, context: Tensor) -> Layer | None:
        """The cached keys and values of a text, computed at the first request; None if caching is not possible."""
        memory = self.tap.memory
        if memory is None or self.copies is not None or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        text = context if self.tap.values is None else self.tap.values
        return memory.layer(self.site.path, context, text, lambda: self._of_text(attn, context))

    def _of_text(self, attn: Attention, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a text."""
        text = context if self.tap.values is None else self.tap.values
        text = attn.norm_encoder_hidden_states(text) if attn.norm_cross else text
        return self._keys(attn, context), self._values(attn, text)

    @staticmethod
    def _queries(attn: Attention, x: Tensor) -> Tensor:
        q = attn.to_q(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        return q if attn.norm_q is None else attn.norm_q(q)

    @staticmethod
    def _values(attn: Attention, x: Tensor) -> Tensor:
        assert attn.to_v is not None  # None only in joint layers, which no UNet has
        return attn.to_v(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)

    @staticmethod
    def _keys(attn: Attention, text: Tensor, normed: bool = True) -> Tensor:
        """The keys of a text; those of pixels skip its norm (`normed=False`)."""
        assert attn.to_k is not None
        text = attn.norm_encoder_hidden_states(text) if attn.norm_cross and normed else text
        k = attn.to_k(text).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        return k if attn.norm_k is None else attn.norm_k(k)


# diffusers inspects the signature at every call of a layer, which takes longer than our own part of the call.
setattr(TapProcessor.__call__, "__signature__", signature(TapProcessor.__call__))  # noqa: B010 - functions declare none


def check_processors(layers: Mapping[str, nn.Module], known: tuple[type, ...] = (*PLAIN, *PICTURED)) -> None:
    """Raise ForeignProcessor if a layer has a processor other than those `known`, before anything is changed."""
    for path, layer in layers.items():
        processor = layer.processor
        if type(processor) not in known:
            name = type(processor).__name__
            cure = next((cure for part, cure in CURES.items() if part in name), None)
            raise ForeignProcessor(
                f"Attention layer {path} carries {name}, which controls would have to replace and whose result is not "
                f"that of plain attention. {cure or 'Restore it first: unet.set_default_attn_processor().'}"
            )


def as_made(layers: Mapping[str, Attention]) -> bool:
    """Whether all layers have the processor that diffusers gives them, which computes plain attention at once."""
    return all(type(layer.processor) is AttnProcessor2_0 for layer in layers.values())


@contextmanager
def installed(
    layers: Mapping[str, Attention],
    sites: Mapping[str, Site],
    tap: Tap,
    shared: str = "",
    copies: Copies = ALL_DIFFERENT,
    compiled: bool = False,
) -> Iterator[None]:
    """Inside, every layer has our processor; at the end, also after an exception, the old ones are restored.

    `shared`: path of the layer whose input has equal rows, as told by `copies`. `compiled`: whether the network is, for
    which a layer must do the same in every pass.
    """
    check_processors(layers)
    before = {path: layer.processor for path, layer in layers.items()}
    kept = {} if tap.memory is None else tap.memory.processors  # from step to step of a run
    known = tap.memory is not None and not compiled and not torch.is_grad_enabled()
    try:
        for path, layer in layers.items():
            ours = kept.get(path)
            if ours is None or ours.before is not before[path]:
                ours = kept[path] = TapProcessor(sites[path], before[path])
            ours.tap, ours.copies = tap, copies if path == shared else None
            ours.plan = tap.plan(ours.site) if known and ours.pictured is None and plain(layer) else None
            _put(layer, ours)
        yield
    finally:
        for path, layer in layers.items():
            _put(layer, before[path])


def _put(layer: Attention, processor: Any) -> None:
    """Set a layer's processor; where neither it nor the one before is a module, that is all there is to do."""
    if "processor" in layer.__dict__ and not isinstance(processor, nn.Module):
        layer.__dict__["processor"] = processor
    else:
        layer.set_processor(cast(AttnProcessor, processor))

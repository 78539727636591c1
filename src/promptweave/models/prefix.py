"""The part of a UNet that has not read the text yet: equal latents make equal features there, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

KNOWN = ("DownBlock2D", "CrossAttnDownBlock2D")


def prefix(unet: Any) -> tuple[list[nn.Module], str]:
    """The modules up to the first cross-attention, and the path of the self-attention layer before it ("": none).

    Both halves of guidance get the same latents, so these modules compute everything twice. Nothing is found in a
    network that reads a text vector along with the time (SDXL), or one that is compiled.
    """
    if unet.config.addition_embed_type is not None or getattr(unet, "_compiled_call_impl", None) is not None:
        return [], ""
    found: list[nn.Module] = [unet.conv_in]
    for level, block in enumerate(unet.down_blocks):
        if type(block).__name__ not in KNOWN:
            break
        if type(block).__name__ == "DownBlock2D":
            found += [*block.resnets, *(block.downsamplers or ())]
            continue
        transformer = block.attentions[0]
        inner = transformer.transformer_blocks[0]
        if inner.only_cross_attention:
            return [*found, block.resnets[0]], ""
        shared = [block.resnets[0], transformer.norm, transformer.proj_in, inner.norm1]
        return [*found, *shared], f"down_blocks.{level}.attentions.0.transformer_blocks.0.attn1"
    return found, ""


@contextmanager
def shared(modules: Sequence[nn.Module], copies: int) -> Iterator[None]:
    """Inside, these modules compute the first of `copies` equal parts of a batch, and their output is repeated."""
    handles: list[Any] = []

    def first(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        rows = len(inputs[0])
        return tuple(x[: rows // copies] if isinstance(x, Tensor) and len(x) == rows else x for x in inputs)

    def repeated(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return output.repeat(copies, *[1] * (output.ndim - 1))

    try:
        for module in modules if copies > 1 else ():
            handles += [module.register_forward_pre_hook(first), module.register_forward_hook(repeated)]
        yield
    finally:
        for handle in handles:
            handle.remove()

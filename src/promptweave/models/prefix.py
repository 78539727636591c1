"""The part of a UNet that has not read the text yet: equal latents make equal features there, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from promptweave.models.copies import Copies

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
def shared(modules: Sequence[nn.Module], copies: Copies) -> Iterator[None]:
    """Inside, these modules compute the different rows of a batch alone, and their output is that of all."""
    handles: list[Any] = []

    def once(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        rows = len(inputs[0])
        return tuple(copies.once(x) if isinstance(x, Tensor) and len(x) == rows else x for x in inputs)

    def everyone(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return copies.all(output)

    try:
        for module in modules if copies.some else ():
            handles += [module.register_forward_pre_hook(once), module.register_forward_hook(everyone)]
        yield
    finally:
        for handle in handles:
            handle.remove()

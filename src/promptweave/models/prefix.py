"""The part of a UNet before its first cross-attention, where equal latents need to be computed only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from promptweave.models.copies import Copies

KNOWN = ("DownBlock2D", "CrossAttnDownBlock2D")


def prefix(unet: Any) -> tuple[list[nn.Module], str]:
    """The modules before the first cross-attention, and the path of the self-attention layer before it ("": none).

    Both halves of guidance read the same latents, so these modules would compute everything twice. Networks that read
    a text vector along with the time (SDXL), and compiled ones, have no such modules.
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
    """Inside, these modules compute equal rows of a batch once, and return the output of the whole batch."""
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

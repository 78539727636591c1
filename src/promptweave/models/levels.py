"""Levels: the outputs of a network's stages, which perception reads as features of an image.

In a UNet these are the decoder's, from coarse to fine. As VPD reads Stable Diffusion 1 (output blocks 1, 4, 7 and 11 of
the authors' code), a level is what the second layer of a stage gives, and what the last layer of the last stage gives.
In a network with joint attention there are no stages: the levels are the image tokens after four of its double blocks,
evenly spaced, all on one grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from promptweave.models.switched import shown

JOINT_LEVELS = 4


@dataclass(frozen=True)
class Level:
    """The output of one module, `path`, with so many channels. `tokens`: it is a sequence of image tokens."""

    path: str
    channels: int
    tokens: bool = False


def levels_of(network: Any) -> tuple[Level, ...]:
    """The levels of a network, in execution order. Raises ValueError for networks that are neither of both kinds."""
    if hasattr(network, "up_blocks"):
        return _decoder(network)
    blocks = getattr(network, "transformer_blocks", None)
    if not blocks:
        raise ValueError(
            "Features are read from the decoder of a UNet or from the double blocks of a joint network. "
            f"Received {type(network).__name__}, which has neither."
        )
    count = min(JOINT_LEVELS, len(blocks))
    chosen = [len(blocks) * (place + 1) // count - 1 for place in range(count)]
    return tuple(Level(f"transformer_blocks.{index}", network.inner_dim, True) for index in chosen)


def _decoder(unet: Any) -> tuple[Level, ...]:
    found: list[Level] = []
    stages = list(unet.up_blocks)
    for number, stage in enumerate(stages):
        attentions = getattr(stage, "attentions", None)
        kind, layers = ("attentions", attentions) if attentions else ("resnets", stage.resnets)
        place = len(layers) - 1 if number == len(stages) - 1 else min(1, len(layers) - 1)
        found.append(Level(f"up_blocks.{number}.{kind}.{place}", stage.resnets[place].out_channels))
    return tuple(found)


@contextmanager
def reading(network: Any, levels: Sequence[Level], found: dict[str, Tensor]) -> Iterator[None]:
    """Inside, each pass of the network leaves the levels in `found`, by path; at the end no hook is left."""
    shown(network, "the features of its stages")

    def seen(level: Level, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, tuple):
            output = output[-1]  # joint blocks give (text, image), transformers of a UNet (image,)
        found[level.path] = output if isinstance(output, Tensor) else output.sample

    handles: list[Any] = []
    try:
        handles += [network.get_submodule(one.path).register_forward_hook(partial(seen, one)) for one in levels]
        yield
    finally:
        for handle in handles:
            handle.remove()

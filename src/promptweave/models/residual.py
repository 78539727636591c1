"""The residual blocks of a UNet, and access to what they add to their input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from promptweave.core.features import Block
from promptweave.core.site import Place
from promptweave.core.tapping import Tap, outside_graphs
from promptweave.models.switched import shown


def residual_blocks(unet: Any) -> tuple[Block, ...]:
    """The blocks in execution order; `path` is that of a block's last convolution, whose output is its feature."""
    stages: list[tuple[Place, str, str, Any]] = []
    stages.extend(("down", f"down_res_{i}", f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks))
    stages.append(("mid", "mid_res", "mid_block", unet.mid_block))
    stages.extend(("up", f"up_res_{i}", f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks))
    found: list[Block] = []
    for place, name, path, stage in stages:
        for number, resnet in enumerate(getattr(stage, "resnets", ())):
            if hasattr(resnet, "conv2"):
                found.append(Block(f"{name}_{number}", place, len(found), f"{path}.resnets.{number}.conv2"))
    return tuple(found)


@contextmanager
def altered(unet: Any, blocks: Sequence[Block], tap: Tap) -> Iterator[None]:
    """Inside, a tap reads and can change the features of these blocks."""
    if blocks:
        shown(unet, "the features of residual blocks")

    @outside_graphs
    def seen(block: Block, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        changed = tap.alter(block, output)
        return output if changed is None else changed

    handles: list[Any] = []
    try:
        handles += [unet.get_submodule(block.path).register_forward_hook(partial(seen, block)) for block in blocks]
        yield
    finally:
        for handle in handles:
            handle.remove()

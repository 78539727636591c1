"""What a network computes between its attention layers: the outputs of its residual blocks, row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.rows import Branch, Layout
from promptweave.core.site import Place


@dataclass(frozen=True)
class Block:
    """A residual block, `index` in execution order; its feature is what it adds to its input. The name of block 2 in
    the decoder's stage 1 is up_res_1_2, as diffusers counts them."""

    name: str
    place: Place
    index: int
    path: str


@dataclass(frozen=True, eq=False)
class Features:
    """A block's feature [batch, channels, height, width] by row: `features.row("cond", 1)` is the first target's."""

    x: Float[Tensor, "batch channels height width"]
    layout: Layout
    changed: bool = False

    def row(self, branch: Branch, prompt: int) -> Float[Tensor, "images channels height width"]:
        """Of all images of a prompt."""
        return self.x[self.layout.slice(branch, prompt)]

    def put(self, branch: Branch, prompt: int, feature: Float[Tensor, "images channels height width"]) -> Features:
        """A copy with another feature of one row."""
        x = self.x.clone()
        x[self.layout.slice(branch, prompt)] = feature.to(x)
        return replace(self, x=x, changed=True)


def joined(parts: list[Features]) -> Tensor | None:
    """The features of a batch again, or None if nobody changed one."""
    return torch.cat([part.x for part in parts]) if any(part.changed for part in parts) else None

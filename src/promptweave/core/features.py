"""Features: the outputs of a network's residual blocks, row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.rows import Branch, Layout
from promptweave.core.site import Place


@dataclass(frozen=True)
class Block:
    """A residual block, number `index` in execution order; its feature is what it adds to its input. Names count as
    diffusers does: up_res_1_2 is block 2 of the decoder's stage 1."""

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
        """The features of all images of a prompt."""
        return self.x[self.layout.slice(branch, prompt)]

    def put(self, branch: Branch, prompt: int, feature: Float[Tensor, "images channels height width"]) -> Features:
        """A copy in which one row has another feature."""
        x = self.x.clone()
        x[self.layout.slice(branch, prompt)] = feature.to(x)
        return replace(self, x=x, changed=True)


def joined(parts: list[Features]) -> Tensor | None:
    """The parts of a batch, concatenated; None if none was changed."""
    return torch.cat([part.x for part in parts]) if any(part.changed for part in parts) else None

"""Masks as controls hold them: rows of zeros and ones, read on the grid of a layer or of the latents."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from promptweave.core.control import NoEffect

Mask = tuple[tuple[float, ...], ...]  # [height, width] of zeros and ones


@runtime_checkable
class ReadsMask(Protocol):
    """A model whose network may read a mask and the image around it (`reads_mask`), beside the latents."""

    @property
    def reads_mask(self) -> bool: ...

    def masked(
        self, picture: Float[Tensor, "n rows columns 3"], mask: Bool[Tensor, "height width"]
    ) -> Float[Tensor, "n more h w"]:
        """What it reads of an image with values in [0, 1] and a mask that is true where the image may change."""
        ...


def on_grid(mask: Mask, size: tuple[int, int], device: torch.device | str = "cpu") -> Bool[Tensor, "height width"]:
    """The cells of a grid of `size` (height, width) of which the mask covers more than half.

    Raises ValueError for rows of different lengths.
    """
    if not mask or not mask[0] or len({len(row) for row in mask}) > 1:
        raise ValueError("A mask has rows of zeros and ones, all of one length. Received rows of different lengths.")
    return F.adaptive_avg_pool2d(torch.tensor(mask, device=device).float()[None, None], size)[0, 0] > 0.5


def finer(region: Bool[Tensor, "images height width"], mask: Mask) -> Bool[Tensor, "images rows columns"]:
    """A region of the latents inside a drawn mask, on the grid of the finer of the two."""
    drawn = torch.tensor(mask, device=region.device)[None] > 0.5
    size = max(drawn.shape[1], region.shape[1]), max(drawn.shape[2], region.shape[2])
    both = [F.interpolate(one[:, None].float(), size=size)[:, 0] > 0.5 for one in (region, drawn)]
    return both[0] & both[1]


def check_covers(mask: Mask, size: tuple[int, int], who: str) -> None:
    """Raise NoEffect for a mask that covers no cell of the latents' grid; `who` names it."""
    if on_grid(mask, size).any():
        return
    if any(value > 0.5 for row in mask for value in row):
        raise NoEffect(
            f"{who} needs a mask that covers more than half of at least one of the {size[0]} x {size[1]} cells of the "
            "latents. Received a finer one. Draw it larger, or make a larger image."
        )
    raise NoEffect(f"{who} needs a mask with a white region. Received one that is black. Paint white what may change.")

"""Masks as controls hold them: rows of zeros and ones, read on the grid of a layer or of the latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from promptweave.core.control import NoEffect

Mask = tuple[tuple[float, ...], ...]  # [height, width] of zeros and ones


def on_grid(mask: Mask, size: tuple[int, int], device: torch.device | str = "cpu") -> Bool[Tensor, "height width"]:
    """The cells of a grid of `size` (height, width) of which the mask covers more than half.

    Raises ValueError for rows of different lengths.
    """
    if not mask or not mask[0] or len({len(row) for row in mask}) > 1:
        raise ValueError("A mask has rows of zeros and ones, all of one length. Received rows of different lengths.")
    return F.adaptive_avg_pool2d(torch.tensor(mask, device=device).float()[None, None], size)[0, 0] > 0.5


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

"""Maps of several grids as one, and the attention that words share among themselves.

DAAM (Tang et al. 2022, arXiv 2210.04885, section 3.1): every layer's map, summed over the steps, is enlarged to the
latent by bicubic interpolation, its undershoot is cut off at 0, and the mean over the layers is taken.

Differs from the authors' code: layers of one grid are averaged before they are enlarged, so that a map for each grid is
kept and not one for each layer and head; sizes need not be square.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMALL = 1e-12  # below any attention that single precision tells from 0


def enlarged(maps: Float[Tensor, "height width channels"], size: tuple[int, int]) -> Float[Tensor, "rows columns n"]:
    """Maps at `size` (height, width) by bicubic interpolation, never below 0."""
    grown = F.interpolate(maps.movedim(-1, 0)[None], size=size, mode="bicubic", align_corners=False)[0]
    return grown.movedim(0, -1).clamp_min(0)


def aggregated(
    maps: Sequence[Float[Tensor, "_ _ channels"]], layers: Sequence[int], size: tuple[int, int]
) -> Float[Tensor, "rows columns channels"]:
    """The mean over the layers of the maps of several grids; `layers` counts those that each is the mean of."""
    weighted = [enlarged(one, size) * count for one, count in zip(maps, layers, strict=True)]
    return torch.stack(weighted).sum(0) / sum(layers)


def shared_out(
    maps: Float[Tensor, "height width channels"], among: Sequence[int]
) -> Float[Tensor, "height width channels"]:
    """Each channel's share of what a pixel gives to the channels `among`: pads, start and pictures left out."""
    total = maps[..., list(among)].sum(-1, keepdim=True)
    return maps / total.clamp_min(SMALL)

"""Aggregation of maps over grids, and normalisation over words.

DAAM (Tang et al. 2022, arXiv 2210.04885, section 3.1): every layer's map, summed over the steps, is resized to the
latent's grid by bicubic interpolation and clamped at 0, and the mean over the layers is taken.

Differs from the authors' code: layers of one grid are averaged before they are resized, so that one map per grid is
kept, not one per layer and head; grids need not be square.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMALL = 1e-12  # smaller than any attention that single precision distinguishes from 0


def enlarged(maps: Float[Tensor, "height width channels"], size: tuple[int, int]) -> Float[Tensor, "rows columns n"]:
    """Maps resized to `size` (height, width) by bicubic interpolation, clamped at 0."""
    grown = F.interpolate(maps.movedim(-1, 0)[None], size=size, mode="bicubic", align_corners=False)[0]
    return grown.movedim(0, -1).clamp_min(0)


def aggregated(
    maps: Sequence[Float[Tensor, "_ _ channels"]], layers: Sequence[int], size: tuple[int, int]
) -> Float[Tensor, "rows columns channels"]:
    """The mean over all layers, from one mean map per grid; `layers`: the number of layers behind each map."""
    weighted = [enlarged(one, size) * count for one, count in zip(maps, layers, strict=True)]
    return torch.stack(weighted).sum(0) / sum(layers)


def shared_out(
    maps: Float[Tensor, "height width channels"], among: Sequence[int]
) -> Float[Tensor, "height width channels"]:
    """Each channel divided by the sum over the channels `among`, which leaves out padding, start and image tokens."""
    total = maps[..., list(among)].sum(-1, keepdim=True)
    return maps / total.clamp_min(SMALL)

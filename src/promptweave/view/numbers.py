"""Statistics of a map: its entropy, its fraction of the attention, its overlap with a region."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from promptweave.view.aggregate import SMALL


def entropy(values: Float[Tensor, "height width"]) -> float:
    """Entropy of the map as a distribution over pixels, in nats: 0 for a single pixel, log(pixels) if uniform."""
    p = values.double().clamp_min(0).flatten()
    p = p / p.sum().clamp_min(SMALL)
    return float(torch.special.entr(p).sum())


def evenness(values: Float[Tensor, "height width"]) -> float:
    """Entropy divided by its maximum: 0 to 1, comparable between grids."""
    return entropy(values) / math.log(max(values.numel(), 2))


def share(values: Float[Tensor, "height width"]) -> float:
    """The fraction of attention on the word, averaged over the pixels."""
    return float(values.double().mean())


def hottest(values: Float[Tensor, "height width"], threshold: int | float = 0.5) -> Bool[Tensor, "height width"]:
    """The region where a map exceeds `threshold` times its maximum."""
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be in [0, 1), a fraction of the map's maximum. Received {threshold}.")
    return values > threshold * values.max()


def iou(found: Bool[Tensor, "_ _"], wanted: Bool[Tensor, "_ _"]) -> float:
    """Intersection over union of two boolean regions; 1 if both are empty."""
    if found.shape != wanted.shape:
        raise ValueError(f"Regions must have equal shapes. Received {found.shape} and {wanted.shape}.")
    union = int((found | wanted).sum())
    return int((found & wanted).sum()) / union if union else 1.0

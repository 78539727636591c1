"""How alike two images are to the eye: SSIM, and distances of the features of a given network.

The features are those of any network that looks at images, as a list of tensors [1, channels, rows, columns].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from promptweave.core.gaussian import gaussian
from promptweave.evaluate.published_metrics import whole_windows

SIGMA, RADIUS = 1.5, 5  # pixels of SSIM's Gaussian window (11 x 11)
STABLE = (0.01**2, 0.03**2)  # C1 and C2 for values in [0, 1]


def ssim(first: np.ndarray, second: np.ndarray, region: np.ndarray | None = None) -> float:
    """Structural similarity of two uint8 images [h, w, 3], 1 for equal ones (Wang et al. 2004, equation 13), averaged
    over the windows of 11 x 11 pixels that lie in the boolean `region` [h, w] as a whole; NaN if there is none.
    """
    if first.shape != second.shape:
        raise ValueError(f"Images must have equal shapes. Received {first.shape} and {second.shape}.")
    whole = None if region is None else whole_windows(region)
    if whole is not None and not whole.any():
        return math.nan
    x, y = (np.moveaxis(each, -1, 0).astype(np.float64) / 255 for each in (first, second))
    down, across = (_blur(side) for side in x.shape[1:])

    def mean(values: np.ndarray) -> np.ndarray:
        return down @ values @ across.T

    a, b = mean(x), mean(y)
    shared = mean(x * y) - a * b
    spreads = mean(x * x) - a * a + mean(y * y) - b * b
    c1, c2 = STABLE
    values = ((2 * a * b + c1) * (2 * shared + c2) / ((a * a + b * b + c1) * (spreads + c2))).mean(0)
    return float(values.mean() if whole is None else values[whole].mean())


@lru_cache(maxsize=8)
def _blur(side: int) -> np.ndarray:
    """The Gaussian window as a matrix [side, side] on lines that are mirrored at their ends."""
    mirrored = np.pad(np.arange(side), RADIUS, mode="reflect")
    made = np.zeros((side, side))
    for place, weight in enumerate(gaussian(SIGMA, RADIUS).tolist()):
        made[np.arange(side), mirrored[place : place + side]] += weight
    return made


def feature_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Perceptual distance: the squared difference of features of unit length, averaged over places and layers (LPIPS,
    Zhang et al. 2018, equation 1, with equal weights); 0 for equal images."""
    layers = [
        (F.normalize(a.double(), dim=1) - F.normalize(b.double(), dim=1)).square().sum(1).mean()
        for a, b in zip(first, second, strict=True)
    ]
    return float(torch.stack(layers).mean())


def structure_distance(first: Tensor, second: Tensor) -> float:
    """Distance of self-similarities: how differently the places of two images resemble each other, whatever their
    colours (Tumanyan et al. 2022, equation 2). The mean squared difference of the two matrices of cosines between all
    places of a layer's features [1, channels, rows, columns]; 0 for equal images."""
    one, two = (_cosines(features) for features in (first, second))
    return float((one - two).square().mean())


def _cosines(features: Tensor) -> Tensor:
    places = F.normalize(features.double().flatten(2), dim=1)[0]
    return places.T @ places

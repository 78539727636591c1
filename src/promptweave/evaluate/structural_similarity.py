"""Structural similarity (SSIM) of two images; the one of all benchmarks, which needs no extra package."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from promptweave.core.gaussian import gaussian

SIGMA, RADIUS = 1.5, 5  # pixels of the Gaussian window
WINDOW = 2 * RADIUS + 1  # its side
STABLE = (0.01**2, 0.03**2)  # C1 and C2 for values in [0, 1]


def ssim(first: np.ndarray, second: np.ndarray, region: np.ndarray | None = None) -> float:
    """Structural similarity of two uint8 images [h, w, 3], 1 for equal ones.

    The mean over the windows of 11 x 11 pixels that lie in the boolean `region` [h, w] as a whole; NaN if there are
    none.
    """
    values = ssim_map(first, second)
    values = values if region is None else values[whole_windows(region)]
    return float(values.mean()) if values.size else math.nan


def ssim_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004, equation 13) of two uint8 images [h, w, 3] at each pixel, mean over the
    channels, float64 [h, w]; lines are mirrored at their ends. Raises ValueError for images of two sizes."""
    if first.shape != second.shape:
        raise ValueError(f"Images must have equal shapes. Received {first.shape} and {second.shape}.")
    x, y = (np.moveaxis(each, -1, 0).astype(np.float64) / 255 for each in (first, second))
    down, across = (_blur(side) for side in x.shape[1:])

    def mean(values: np.ndarray) -> np.ndarray:
        return down @ values @ across.T

    a, b = mean(x), mean(y)
    shared = mean(x * y) - a * b
    spreads = mean(x * x) - a * a + mean(y * y) - b * b
    c1, c2 = STABLE
    return ((2 * a * b + c1) * (2 * shared + c2) / ((a * a + b * b + c1) * (spreads + c2))).mean(0)


def whole_windows(outside: np.ndarray) -> np.ndarray:
    """The pixels whose window lies in `outside` as a whole, bool [h, w]."""
    image = Image.fromarray(np.pad(outside, RADIUS, mode="edge").astype(np.uint8) * 255)
    inner = np.asarray(image.filter(ImageFilter.MinFilter(WINDOW))) > 0
    return inner[RADIUS:-RADIUS, RADIUS:-RADIUS]


@lru_cache(maxsize=8)
def _blur(side: int) -> np.ndarray:
    """The Gaussian window as a matrix [side, side] on lines that are mirrored at their ends."""
    mirrored = np.pad(np.arange(side), RADIUS, mode="reflect")
    made = np.zeros((side, side))
    for place, weight in enumerate(gaussian(SIGMA, RADIUS).tolist()):
        made[np.arange(side), mirrored[place : place + side]] += weight
    return made

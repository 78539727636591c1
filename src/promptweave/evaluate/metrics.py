"""Distances between images as in PIE-Bench (Ju et al. 2024, arXiv 2310.01506), and region overlap."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter


def mse(first: np.ndarray, second: np.ndarray, region: np.ndarray | None = None) -> float:
    """Mean squared error of two uint8 images [h, w, 3], scaled to [0, 1], over the boolean `region` [h, w]."""
    if first.shape != second.shape:
        raise ValueError(f"Images must have equal shapes. Received {first.shape} and {second.shape}.")
    squares = ((first.astype(np.float64) - second.astype(np.float64)) / 255) ** 2
    if region is None:
        return float(squares.mean())
    return float(squares[region].mean()) if region.any() else math.nan


def psnr(first: np.ndarray, second: np.ndarray, region: np.ndarray | None = None, ceiling: int | float = 60.0) -> float:
    """Peak signal-to-noise ratio in dB over `region`; `ceiling` for equal images, NaN for an empty region."""
    error = mse(first, second, region)
    return math.nan if math.isnan(error) else min(ceiling, -10 * math.log10(max(error, 1e-12)))


def layout(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of the edges of two uint8 images [h, w, 3], -1 to 1: similarity of outlines, regardless of colour.

    Edges are the gradient magnitude of the grey image, blurred over two pixels.
    """
    edges = [_edges(picture) for picture in (first, second)]
    spreads = [np.sqrt((e * e).sum()) for e in edges]
    return float((edges[0] * edges[1]).sum() / max(spreads[0] * spreads[1], 1e-12))


def _edges(picture: np.ndarray) -> np.ndarray:
    """The edge strength, minus its mean."""
    grey = np.asarray(Image.fromarray(picture).convert("L").filter(ImageFilter.GaussianBlur(2))).astype(np.float64)
    down, right = np.gradient(grey)
    strength = np.hypot(down, right)
    return strength - strength.mean()


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boolean regions; NaN when both are empty."""
    union = np.logical_or(first, second).sum()
    return float(np.logical_and(first, second).sum() / union) if union else math.nan

"""Principal components of self-attention, and the map of one pixel.

As in the Prompt-to-Prompt notebooks: the map is averaged over heads, layers and steps, the mean of each row is
subtracted, and the right singular vectors of the largest singular values are shown as images.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def components(attention: Float[Tensor, "height width pixels"], count: int = 10) -> Float[Tensor, "count height width"]:
    """The first `count` right singular vectors, orthonormal, each with the sign that makes its largest entry positive.

    `pixels` = height x width are the keys. Raises ValueError for other maps and for a wrong count.
    """
    height, width, pixels = attention.shape
    if pixels != height * width:
        raise ValueError(
            f"Components are computed from self-attention, with a map for each of the {height * width} pixels. "
            f"Received maps of {pixels} keys."
        )
    if not 1 <= count <= pixels:
        raise ValueError(f"count must be 1 to {pixels}, the number of pixels. Received {count}.")
    rows = attention.reshape(pixels, pixels).double()
    vectors = torch.linalg.svd(rows - rows.mean(1, keepdim=True), full_matrices=False).Vh[:count]
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return (vectors * largest.sign()).to(attention.dtype).reshape(count, height, width)


def spread(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Values shifted and scaled to [0, 1]; 0 if all are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)


def at_pixel(
    attention: Float[Tensor, "height width pixels"], x: int | float, y: int | float
) -> Float[Tensor, "height width"]:
    """The map [height, width] of the pixel at (x, y), fractions of width and height in [0, 1)."""
    height, width, _ = attention.shape
    if not (0 <= x < 1 and 0 <= y < 1):
        raise ValueError(f"x and y are fractions of width and height, in [0, 1). Received x={x}, y={y}.")
    return attention[int(y * height), int(x * width)].reshape(height, width)

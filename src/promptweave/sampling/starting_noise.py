"""The starting noise of a run, and which sizes and seeds there are."""

from __future__ import annotations

from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.typed import checked
from promptweave.models.base import Model

PIXELS = 2**26  # of an image
LAST_SEED = 2**63 - 1


def latent_grid(model: Model, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) of the latent for an image of `size` (height, width) pixels; None: the model's default size.

    Raises ValueError for a size that the model cannot generate.
    """
    height, width = size or model.default_size
    check_pixels((height, width))
    if height % model.multiple or width % model.multiple or height <= 0 or width <= 0:
        raise ValueError(
            f"Height and width must be positive multiples of {model.multiple} pixels for this model. "
            f"Received {height} x {width}; {_near(height, model.multiple)} x {_near(width, model.multiple)} would do."
        )
    return height // model.factor, width // model.factor


def check_pixels(size: tuple[int, int]) -> None:
    """Raise ValueError for a size (height, width) that no machine computes; the system would end the process."""
    if size[0] * size[1] > PIXELS:
        raise ValueError(
            f"size must be at most {PIXELS} pixels (8192 x 8192). Received {size[0]} x {size[1]}. Make it smaller."
        )


def _near(side: int, factor: int) -> int:
    return max(factor, round(side / factor) * factor)


@checked
def noise_for(
    model: Model, seed: int, images: int = 1, size: tuple[int, int] | None = None
) -> Float[Tensor, "images channels h w"]:
    """Starting noise: that of image i is drawn on the CPU by its own generator, seeded with seed + i.

    `size`: (height, width) in pixels; None: the model's default. Raises ValueError for sizes it cannot generate, and
    for seeds that are negative or have more than 63 bits.
    """
    check_seed(seed)
    shape = (1, model.channels, *latent_grid(model, size))
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed + i)) for i in range(images)]
    return torch.cat(draws)


def check_seed(seed: int) -> None:
    """Raise ValueError for a seed that is no whole number from 0 to `LAST_SEED`."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed <= LAST_SEED:
        raise ValueError(f"A seed must be a whole number from 0 to 2**63 - 1. Received {seed!r}.")

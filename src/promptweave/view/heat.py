"""Heat maps of words (Prompt-to-Prompt, figure 4)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

# Control points of a colour map with increasing lightness: dark blue, violet, orange, pale yellow.
RAMP = np.array(
    [(10, 8, 40), (70, 20, 110), (160, 45, 105), (230, 95, 50), (250, 175, 40), (252, 250, 190)], dtype=np.float32
)


def coloured(values: np.ndarray, ramp: np.ndarray = RAMP) -> np.ndarray:
    """Values in [0, 1] as colours, uint8 [h, w, 3]."""
    place = values.clip(0, 1) * (len(ramp) - 1)
    low = place.astype(int).clip(0, len(ramp) - 2)
    share = (place - low)[..., None]
    return (ramp[low] * (1 - share) + ramp[low + 1] * share).astype(np.uint8)


# Diverging colour map: blue (more in the source), white (equal), red (more in the target).
BOTH_WAYS = np.array([(20, 60, 150), (90, 150, 215), (246, 246, 246), (230, 130, 90), (160, 25, 35)], dtype=np.float32)


def heat(values: Float[Tensor, "height width"], size: tuple[int, int], top: int | float | None = None) -> np.ndarray:
    """A map divided by its maximum, or by `top`, clipped to [0, 1] and resized to `size` (width, height)."""
    highest = values.max() if top is None else values.new_tensor(top)
    scaled = (values / highest.clamp_min(1e-12)).float().cpu().numpy()
    image = Image.fromarray(scaled).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image).clip(0, 1)


def signed(values: Float[Tensor, "height width"], size: tuple[int, int], top: int | float) -> np.ndarray:
    """A difference from -top (blue) over 0 (white) to top (red), uint8 [h, w, 3], of `size` (width, height)."""
    scaled = (values / max(float(top), 1e-12)).float().cpu().numpy()
    grown = np.asarray(Image.fromarray(scaled).resize(size, Image.Resampling.BICUBIC))
    return coloured((grown + 1) / 2, BOTH_WAYS)


def over(
    values: Float[Tensor, "height width"],
    picture: np.ndarray,
    strength: int | float = 0.65,
    top: int | float | None = None,
) -> np.ndarray:
    """The map in colour over the darkened image, uint8 [h, w, 3]."""
    hot = heat(values, (picture.shape[1], picture.shape[0]), top)
    grey = picture.astype(np.float32).mean(-1, keepdims=True).repeat(3, -1) * 0.8
    return (grey * (1 - strength) + coloured(hot) * strength).astype(np.uint8)

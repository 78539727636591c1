"""Which number of an image is white, and images as 8 bits a channel.

Of whole numbers it is 255 if none is larger, else 65535; of floating-point numbers 1, or 255 if most are larger than 1
or all are whole. Other ranges have no agreed white and are refused: HDR images, negative numbers, NaN.
"""

from __future__ import annotations

import numpy as np

SLACK = 0.1  # by which resampling may leave the range of floating-point numbers


class BadPicture(ValueError):
    """A file or an array that cannot be read as an image."""


def white(values: np.ndarray, name: str = "The image") -> int:
    """The number that is white (see above). Raises BadPicture for a range that has no agreed white."""
    if values.dtype.kind == "b":
        return 1
    if values.dtype.kind not in "uif":
        raise BadPicture(f"{name} must hold numbers. Received the type {values.dtype}.")
    if values.dtype == np.uint8:
        return 255
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise BadPicture(f"{name} must hold finite numbers. Received NaN or infinity. Replace them first.")
    if values.dtype.kind != "f":
        if low >= 0 and high <= 65535:
            return 255 if high <= 255 else 65535
        raise BadPicture(
            f"{name} of whole numbers goes from 0 to 255 or to 65535. Received {low} to {high}. Scale it to one of "
            "these."
        )
    if low >= -SLACK and high <= 1 + SLACK:
        return 1
    if low >= -SLACK * 255 and high <= (1 + SLACK) * 255:
        if (values > 1).mean() > 0.5 or (low >= 0 and np.array_equal(values, np.rint(values))):
            return 255
    cure = "Scale it: x / 2 + 0.5." if low >= -1 - SLACK and high <= 1 + SLACK else "Tone-map or scale it to 0 to 1."
    raise BadPicture(
        f"{name} of floating-point numbers goes from 0 to 1, or to 255. Received {low:.3g} to {high:.3g}. {cure}"
    )


def eight_bits(values: np.ndarray, name: str) -> np.ndarray:
    """The numbers as uint8."""
    if values.dtype == np.uint8:
        return values
    top = white(values, name)
    return np.rint(values.clip(0, top) * np.float32(255 / top)).clip(0, 255).astype(np.uint8)

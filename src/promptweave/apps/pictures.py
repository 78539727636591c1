"""Pictures that commands are given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_mask(path: Path) -> list[list[float]]:
    """A mask's picture as rows of zeros and ones."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            grey = image.convert("L")
            grey.thumbnail((256, 256))
    except OSError as error:
        raise ValueError(f"--mask takes a picture, and {path} cannot be read as one: {error}.") from error
    return (np.asarray(grey) > 127).astype(float).tolist()


def read_drawn(path: Path) -> tuple[tuple[float, ...], ...]:
    """The same as tuples, which recipes hold."""
    return tuple(tuple(row) for row in read_mask(path))


def passes(steps: int, image: Path | None) -> int:
    """Steps to wait for: a picture is walked back to noise first."""
    return steps if image is None else 2 * steps


def given_line(report: Mapping[str, Any]) -> list[str]:
    """How near the source comes to the picture that was given; nothing if none was."""
    found = report.get("picture")
    return (
        [f"  inversion {found['inversion']}: PSNR of the source to the picture {found['psnr']:.1f} dB"] if found else []
    )

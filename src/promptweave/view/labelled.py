"""Regions of an image in colours, with a legend."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from promptweave.view.sheet import INK, PAPER, enlarged
from promptweave.view.text import length, write

TEXT, ROW, GAP = 14, 20, 8  # pixels
STRENGTH = 0.6
GOLDEN = 0.618034  # so that neighbouring numbers have hues far apart


def palette(count: int) -> np.ndarray:
    """So many colours, uint8 [count, 3]; the same number always has the same."""
    colours = [
        colorsys.hsv_to_rgb(n * GOLDEN % 1, 0.65 + 0.3 * (n % 2), 0.95 - 0.25 * (n % 3 == 2)) for n in range(count)
    ]
    return (np.array(colours).reshape(-1, 3) * 255).round().astype(np.uint8)


def tinted(picture: np.ndarray, labels: np.ndarray, colours: np.ndarray, strength: float = STRENGTH) -> np.ndarray:
    """The image [height, width, 3] under the colours of its labels [height, width], uint8."""
    return (picture * (1 - strength) + colours[labels] * strength).astype(np.uint8)


def legend(page: Image.Image, names: Sequence[str], colours: Sequence[np.ndarray] | np.ndarray) -> Image.Image:
    """The image, enlarged if it is small, with named colours below it."""
    page = enlarged(page)
    places: list[tuple[int, int]] = []
    x, y = GAP, GAP
    for name in names:
        wide = ROW + int(length(name, TEXT)) + 2 * GAP
        if x > GAP and x + wide > page.width:
            x, y = GAP, y + ROW
        places.append((x, y))
        x += wide
    made = Image.new("RGB", (page.width, page.height + y + ROW + GAP), PAPER)
    made.paste(page, (0, 0))
    draw = ImageDraw.Draw(made)
    for (left, top), name, colour in zip(places, names, colours, strict=True):
        down = page.height + top
        draw.rectangle((left, down + 3, left + TEXT, down + 3 + TEXT), (int(colour[0]), int(colour[1]), int(colour[2])))
        write(made, (left + ROW, down + ROW / 2), name, INK, TEXT, "lm")
    return made

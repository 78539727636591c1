"""Boxes drawn on images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from promptweave.view.sheet import enlarged
from promptweave.view.text import length, write

Number = int | float
Box = tuple[Number, Number, Number, Number]  # left, top, right, bottom, as fractions of the image
QUADRANTS: dict[str, Box] = {
    "upper left": (0.0, 0.0, 0.5, 0.5),
    "upper right": (0.5, 0.0, 1.0, 0.5),
    "lower left": (0.0, 0.5, 0.5, 1.0),
    "lower right": (0.5, 0.5, 1.0, 1.0),
}
COLOURS = ((230, 40, 60), (30, 90, 220), (240, 150, 0), (150, 40, 190), (0, 140, 130))


def boxed(picture: np.ndarray | Image.Image, boxes: Mapping[str, Box]) -> Image.Image:
    """The image with a labelled frame for each box; small images are enlarged."""
    image = enlarged(picture).convert("RGB").copy()
    draw, text = ImageDraw.Draw(image), 13
    for colour, (name, (left, top, right, bottom)) in zip(COLOURS * len(boxes), boxes.items(), strict=False):
        x0, y0 = round(left * image.width), round(top * image.height)
        x1, y1 = round(right * image.width) - 1, round(bottom * image.height) - 1
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=3)
        width = length(name, text)
        draw.rectangle((x0, y0, x0 + width + 9, y0 + text + 6), fill=colour)
        write(image, (x0 + 5, y0 + 3), name, (255, 255, 255), text)
    return image

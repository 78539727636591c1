"""Labelled sheets of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from promptweave.view.fonts import faces
from promptweave.view.fonts import font as font
from promptweave.view.text import length, write
from promptweave.view.text import wrapped as wrapped

INK, PAPER = (30, 30, 34), (255, 255, 255)
SMALLEST = 192  # pixels: smaller images are enlarged to this side on a sheet, so that labels fit


def sheet(
    rows: Sequence[Sequence[np.ndarray | Image.Image]], labels: Sequence[Sequence[str]], gap: int = 12
) -> Image.Image:
    """A sheet with rows of images, each with its label below."""
    faces("".join(label for row in labels for label in row))  # says at once what no font has
    images = [[enlarged(picture) for picture in row] for row in rows]
    width, height = images[0][0].size
    text = 14
    lines = [[wrapped(label, width, text) for label in row] for row in labels]
    heights = [max((len(label) for label in row), default=0) * (text + 4) + 8 for row in lines]
    columns = max(map(len, images))
    page = Image.new("RGB", (columns * (width + gap) + gap, sum(heights) + len(images) * (height + gap) + gap), PAPER)
    y = gap
    for row, texts, extra in zip(images, lines, heights, strict=True):
        for column, (image, label) in enumerate(zip(row, texts, strict=True)):
            x = gap + column * (width + gap)
            page.paste(image, (x, y))
            for number, line in enumerate(label):
                write(page, (x + width / 2, y + height + 6 + number * (text + 4)), line, INK, text, "ma")
        y += height + extra + gap
    return page


def grid_sheet(
    pictures: Sequence[Sequence[np.ndarray | Image.Image]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    source: np.ndarray | Image.Image | None = None,
    title: Sequence[str] = (),
    gap: int = 6,
    smallest: int = SMALLEST,
) -> Image.Image:
    """A grid of images with labels for rows and columns, under a title and the source."""
    faces("".join((*rows, *columns, *title)))
    images = [[enlarged(picture, smallest) for picture in row] for row in pictures]
    width, height = images[0][0].size
    text = 16
    side = max(int(length(label, text)) for label in rows) + 2 * gap
    full = max(side + len(columns) * (width + gap), 3 * width)
    left = gap if source is None else side + width + 2 * gap
    lines = [line for part in title for line in wrapped(part, full - left - gap, text)]
    banner = max(len(lines) * (text + 6), 0 if source is None else height) + 2 * gap
    heads = [wrapped(label, width - 2 * gap, text, at="_ ") for label in columns]
    deepest = max(map(len, heads))
    top = banner + deepest * (text + 2) + 2 * gap
    page = Image.new("RGB", (full, top + len(rows) * (height + gap)), PAPER)
    if source is not None:
        page.paste(enlarged(source), (side, gap))
    for number, line in enumerate(lines):
        write(page, (left, gap + number * (text + 6)), line, INK, text)
    for column, parts in enumerate(heads):
        x = side + column * (width + gap) + width / 2
        for number, part in enumerate(parts):
            y = banner + gap + (deepest - len(parts) + number) * (text + 2) + text / 2
            write(page, (x, y), part, INK, text, "mm")
    for row, (label, line) in enumerate(zip(rows, images, strict=True)):
        y = top + row * (height + gap)
        write(page, (side - gap, y + height / 2), label, INK, text, "rm")
        for column, image in enumerate(line):
            page.paste(image, (side + column * (width + gap), y))
    return page


def reduced(picture: np.ndarray | Image.Image, side: int) -> np.ndarray:
    """The image scaled down to a longer side of at most `side`, uint8 [height, width, 3]."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    scale = side / max(image.size)
    if scale >= 1:
        return np.asarray(image)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def enlarged(picture: np.ndarray | Image.Image, smallest: int = SMALLEST) -> Image.Image:
    """The image enlarged by a whole factor to a shorter side of at least `smallest` pixels."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    factor = -(-smallest // min(image.size))
    return (
        image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS) if factor > 1 else image
    )

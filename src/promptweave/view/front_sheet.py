"""A plot of what was kept against what was changed, above the images of its front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from promptweave.view.curves import COLOURS, FAINT
from promptweave.view.sheet import INK, PAPER, sheet
from promptweave.view.text import length, wrapped, write

HEIGHT, TEXT = 300, 14
BLUE, ORANGE = COLOURS[0], COLOURS[1]


@dataclass(frozen=True)
class Mark:
    """A point of the plot. `number`: its place on the front; None: it is not on it. `made`: whether the edit counts as
    made."""

    across: int | float
    up: int | float
    number: int | None
    made: bool
    picked: bool


def front_sheet(
    marks: Sequence[Mark],
    pictures: Sequence[np.ndarray],
    labels: Sequence[str],
    *,
    title: Sequence[str],
    across: str,
    up: str,
    columns: int = 6,
) -> Image.Image:
    """The plot under a title, and below it the images with their labels, `columns` in a row."""
    starts = range(0, len(pictures), columns)
    below = sheet([pictures[i : i + columns] for i in starts], [labels[i : i + columns] for i in starts])
    width = max(below.width, 820)
    lines = [line for part in title for line in wrapped(part, width - 24, TEXT)]
    head = len(lines) * (TEXT + 6) + 16
    page = Image.new("RGB", (width, head + HEIGHT + below.height), PAPER)
    for number, line in enumerate(lines):
        write(page, (12, 10 + number * (TEXT + 6)), line, INK, TEXT)
    page.paste(_plot(marks, width, across, up), (0, head))
    page.paste(below, (0, head + HEIGHT))
    return page


def _plot(marks: Sequence[Mark], width: int, across: str, up: str) -> Image.Image:
    page = Image.new("RGB", (width, HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    left, right, top, bottom = 60, width - 24, 34, HEIGHT - 46
    low, high = min(mark.across for mark in marks), max(mark.across for mark in marks)
    spare = max((high - low) * 0.08, 0.01)
    low, high = low - spare, high + spare

    def place(mark: Mark) -> tuple[float, float]:
        return left + (right - left) * (mark.across - low) / (high - low), bottom - (bottom - top) * mark.up

    write(page, (12, 6), up, INK, TEXT)
    for part in range(5):
        y = bottom - (bottom - top) * part / 4
        draw.line([(left, y), (right, y)], INK if part == 2 else FAINT)  # half is where an edit counts as made
        write(page, (left - 8, y), f"{part / 4:g}", INK, TEXT - 2, "rm")
        value = low + (high - low) * part / 4
        x = left + (right - left) * part / 4
        write(page, (x, bottom + 6), f"{value:.3g}", INK, TEXT - 2, "ma")
    write(page, ((left + right) / 2, HEIGHT - 22), across, INK, TEXT, "ma")
    front = sorted((mark for mark in marks if mark.number is not None), key=lambda mark: mark.number or 0)
    if len(front) > 1:
        draw.line([place(mark) for mark in front], BLUE, 2)
    for mark in sorted(marks, key=lambda mark: mark.picked):  # the picked one on top
        x, y = place(mark)
        size = 5 if mark.number is None else 8
        colour = ORANGE if mark.picked else BLUE
        box = (x - size, y - size, x + size, y + size)
        draw.ellipse(box, colour if mark.made else PAPER, colour, 2)
    for mark in front:
        x, y = place(mark)
        text = f"{mark.number}{' picked' if mark.picked else ''}"
        x = min(x, right - length(text, TEXT) / 2)
        write(page, (x, y - 24 if y > top + 24 else y + 12), text, INK, TEXT, "ma")
    return page

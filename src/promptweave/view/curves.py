"""Line plots over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from promptweave.view.sheet import INK, PAPER
from promptweave.view.text import length, write

# The colour-blind-safe palette of Okabe and Ito.
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (0, 0, 0))
FAINT = (214, 214, 220)


def curves(
    lines: Mapping[str, Sequence[int | float]],
    *,
    title: str = "",
    across: str = "step",
    size: tuple[int, int] = (640, 360),
) -> Image.Image:
    """Plot named lines over 0, 1, 2 ..., each labelled at its end; `size`: (width, height) in pixels."""
    (width, height), text = size, 14
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    right = max((int(length(name, text)) for name in lines), default=0) + 20
    left, top, bottom = 56, 40, height - 48
    count = max((len(values) for values in lines.values()), default=1)
    highest = max((max(values) for values in lines.values() if values), default=0) or 1.0

    def place(index: int, value: int | float) -> tuple[float, float]:
        return left + (width - left - right) * index / max(1, count - 1), bottom - (bottom - top) * value / highest

    write(page, (left, 10), title, INK, text)
    for part in range(5):
        value = highest * part / 4
        draw.line([place(0, value), place(count - 1, value)], FAINT)
        write(page, (left - 8, place(0, value)[1]), f"{value:.3g}", INK, text - 2, "rm")
    for index in sorted({round((count - 1) * part / 5) for part in range(6)}):
        write(page, (place(index, 0)[0], bottom + 6), str(index), INK, text - 2, "ma")
    write(page, ((left + width - right) / 2, height - 22), across, INK, text, "ma")
    taken: list[float] = []
    for number, (name, values) in enumerate(lines.items()):
        colour, points = COLOURS[number % len(COLOURS)], [place(i, value) for i, value in enumerate(values)]
        draw.line(points if len(points) > 1 else [points[0], points[0]], colour, 3, joint="curve")
        y = points[-1][1]
        while any(abs(y - other) < text + 2 for other in taken):
            y -= text + 2
        taken.append(y)
        write(page, (width - right + 8, y), name, colour, text, "lm")
    return page

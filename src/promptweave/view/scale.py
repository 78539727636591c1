"""A colour scale below a sheet of differences."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from promptweave.view.heat import BOTH_WAYS, coloured
from promptweave.view.sheet import INK, PAPER
from promptweave.view.text import write

LENGTH, HEIGHT, ROOM = 260, 14, 60  # pixels


def with_scale(
    page: Image.Image, top: float, text: str = "fraction of a pixel's attention, edit - source"
) -> Image.Image:
    """The sheet with a colour bar from -top (blue) to +top (red) below it."""
    made = Image.new("RGB", (max(page.width, LENGTH + 120), page.height + ROOM), PAPER)
    made.paste(page, (0, 0))
    bar = coloured(np.linspace(0, 1, LENGTH)[None].repeat(HEIGHT, 0), BOTH_WAYS)
    x, y = 60, page.height + 8
    made.paste(Image.fromarray(bar), (x, y))
    draw = ImageDraw.Draw(made)
    draw.rectangle((x - 1, y - 1, x + LENGTH, y + HEIGHT), outline=INK)
    for place, label in ((0, f"-{top:.2g}"), (0.5, "0"), (1, f"+{top:.2g}")):
        write(made, (x + place * LENGTH, y + HEIGHT + 6), label, INK, 14, "ma")
    write(made, (x + LENGTH + 24, y + HEIGHT / 2), text, INK, 14, "lm")
    return made

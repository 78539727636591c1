"""Drawings of the alignment of two prompts: both in a line, with a line from each word to its counterpart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image, ImageDraw

from promptweave.view.sheet import INK, PAPER
from promptweave.view.text import cells, length, write

Color = tuple[int, int, int]
Spots = list[tuple[float | None, float | None]]  # centres of a word above and of its counterpart below
COLOURS: dict[str, Color] = {
    "kept": (120, 124, 134), "swapped": (201, 92, 20), "added": (28, 128, 72), "dropped": (178, 34, 52),
}  # fmt: skip
TEXT, GAP, APART, MARGIN = 20, 14, 74, 16  # pixels: letter height, word gap, line gap, margin


@dataclass(frozen=True)
class Thread:
    """One pair of the alignment: its kind, and the words on both sides."""

    kind: str
    source: str | None
    target: str | None


def threads(pairs: Sequence[Mapping[str, str | None]]) -> list[Thread]:
    """The pairs of the alignment in an effect report."""
    return [Thread(str(pair["kind"]), pair["source"], pair["target"]) for pair in pairs]


def drawn(lines: Sequence[Thread]) -> Image.Image:
    """Source above, target below; grey: kept, orange: swapped, green: added, red: dropped."""
    spots, width = _places(lines, lambda text: length(text, TEXT))
    page = Image.new("RGB", (round(width), APART + 2 * TEXT + 2 * MARGIN + 26), PAPER)
    draw = ImageDraw.Draw(page)
    top, bottom = MARGIN, MARGIN + TEXT + APART
    for line, (above, below) in zip(lines, spots, strict=True):
        colour = COLOURS[line.kind]
        if above is not None and below is not None:
            draw.line((above, top + TEXT + 10, below, bottom - 6), colour, 3 if line.kind != "kept" else 2)
        for text, x, y in ((line.source, above, top), (line.target, below, bottom)):
            if text is not None and x is not None:
                write(page, (x, y), text, INK if line.kind == "kept" else colour, TEXT, "ma")
    x = MARGIN
    for kind in dict.fromkeys(line.kind for line in lines):
        draw.line((x, page.height - 14, x + 18, page.height - 14), COLOURS[kind], 3)
        write(page, (x + 24, page.height - 14), kind, INK, 14, "lm")
        x += 24 + round(length(kind, 14)) + 18
    return page


def svg(lines: Sequence[Thread]) -> str:
    """The same as an <svg> element, styled by the page: classes kept, swapped, added and dropped."""
    advance = 0.6 * TEXT  # letter width of a monospaced font; textLength enforces it in any font
    spots, width = _places(lines, lambda text: advance * cells(text))
    top, bottom = MARGIN + TEXT, MARGIN + 2 * TEXT + APART
    parts: list[str] = []
    for line, (above, below) in zip(lines, spots, strict=True):
        if above is not None and below is not None:
            parts.append(
                f'<line class="{line.kind}" x1="{above:.1f}" y1="{top + 9}" x2="{below:.1f}" y2="{bottom - TEXT - 2}"/>'
            )
        for text, x, y in ((line.source, above, top), (line.target, below, bottom)):
            if text is not None and x is not None:
                parts.append(
                    f'<text class="{line.kind}" x="{x:.1f}" y="{y}" textLength="{advance * cells(text):.1f}" '
                    f'lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
                )
    height = bottom + MARGIN
    said = ", ".join(f"{line.source or 'nothing'} {line.kind} {line.target or ''}".strip() for line in lines)
    return (
        f'<svg class="threads" role="img" aria-label="{escape(said)}" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}">{"".join(parts)}</svg>'
    )


def _places(
    lines: Sequence[Thread], length: Callable[[str], float]
) -> tuple[list[tuple[float | None, float | None]], float]:
    """The centre of each word above and below, and the total width."""
    ends = [float(MARGIN), float(MARGIN)]
    spots: Spots = []
    for line in lines:
        found: list[float | None] = []
        for side, text in enumerate((line.source, line.target)):
            if text is None:
                found.append(None)
                continue
            wide = float(length(text))
            found.append(ends[side] + wide / 2)
            ends[side] += wide + GAP
        spots.append((found[0], found[1]))
    return spots, max(*ends, 260.0) - GAP + MARGIN

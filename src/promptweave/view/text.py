"""Text in images, in any script: each part with a font that has its characters, from right to left where it is read so.

A label that Pillow's own font has is drawn with it alone. Otherwise each word is drawn with one font that has all of
it, or each of its characters with its own.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from promptweave.view.fonts import covered, faces, font, opened, shapes, tell_of_shaping

Color = tuple[int, int, int]
Number = int | float  # beartype does not accept an int as a float
JOINER = "\u200d"


@dataclass(frozen=True)
class Part:
    """Characters with one font, all read in one direction."""

    text: str
    path: Path | None
    leftward: bool | None  # None: spaces and digits, which go either way


def length(text: str, size: int) -> Number:
    """The width of a label in pixels."""
    return sum((_length(part, size) for part in parts(text)), 0.0)


def write(
    page: Image.Image, place: tuple[Number, Number], text: str, fill: Color, size: int, anchor: str = "la"
) -> None:
    """Draw a label at a place, as `ImageDraw.text` does; `anchor`: l, m or r, and a, m or d."""
    draw, own, shown = ImageDraw.Draw(page), font(size), parts(text)
    if all(part.path is None for part in shown) and not _leftward(text):
        draw.text(place, _plain(text), fill, own, anchor=anchor)
        return
    ascent, descent = own.getmetrics() if isinstance(own, ImageFont.FreeTypeFont) else (size, 0)
    across, down = anchor
    x = place[0] - length(text, size) * {"l": 0, "m": 0.5, "r": 1}[across]
    y = place[1] + {"a": ascent, "m": (ascent - descent) / 2, "d": -descent}[down]
    for part in shown:
        face, scale = opened(part.path, size)
        if scale == 1:
            draw.text((x, y), part.text, fill, face, anchor="ls", embedded_color=True)
        else:
            _paste(page, (x, y), part.text, face, scale)
        x += _length(part, size)


def wrapped(text: str, width: int, size: int, at: str = " ") -> list[str]:
    """Wrap text to `width` pixels, after one of the characters `at`, and between characters where a script has no
    spaces; a word that is too long is cut."""
    faces(text)  # says at once what of it no font has
    lines: list[str] = []
    for word in re.findall(f"[^{at}]+[{at}]?", " ".join(text.split())):
        for piece in clusters(word) if _wide(word) else [word]:
            if lines and length((lines[-1] + piece).rstrip(), size) <= width:
                lines[-1] += piece
                continue
            lines.append(_cut(piece, width, size))
    return [line.rstrip() for line in lines]


def cells(text: str) -> int:
    """The width of a text in letters of a monospaced font: two for a Chinese character, none for an accent.

    >>> cells("cafe\u0301"), cells("猫")
    (4, 2)
    """
    return sum(2 if unicodedata.east_asian_width(cluster[0]) in "WF" else 1 for cluster in clusters(text))


def clusters(text: str) -> list[str]:
    """Letters with their marks, and emoji of several."""
    found: list[str] = []
    for character in text:
        inside = unicodedata.category(character) in ("Mn", "Me", "Mc", "Cf") or 0x1F3FB <= ord(character) <= 0x1F3FF
        if found and (inside or found[-1].endswith(JOINER) or _flag(found[-1], character)):
            found[-1] += character
        else:
            found.append(character)
    return found


@lru_cache(maxsize=1024)
def parts(text: str) -> tuple[Part, ...]:
    """The parts of a label from left to right."""
    text = _plain(text)
    found = faces(text)
    if all(path is None for path in found.values()):
        return (Part(text, None, None),)
    made: list[Part] = []
    for word in re.findall(r"\s+|[^\s]+", text):
        path = _one_for_all(word, found)
        pieces = [word] if path != _NO_FONT else clusters(word)
        for piece in pieces:
            own = path if path != _NO_FONT else _one_for_all(piece, found)
            made.append(Part(piece, None if own == _NO_FONT else own, _direction(piece)))
    return _in_order(_merged(made))


_NO_FONT = Path("none")


def _one_for_all(word: str, found: dict[str, Path | None]) -> Path | None:
    """The first of the fonts of a word's characters that has them all; characters that no font has do not count."""
    seen = "".join(character for character in dict.fromkeys(word) if character in found)
    for path in dict.fromkeys(found[character] for character in seen):
        if len(covered(path, seen)) == len(seen):
            return path
    return _NO_FONT if seen else None


def _merged(made: list[Part]) -> tuple[Part, ...]:
    """Neighbours of one font and direction as one part; spaces between others are Pillow's own."""
    merged: list[Part] = []
    for part in made:
        last = merged[-1] if merged else None
        if last is not None and (last.path, last.leftward) == (part.path, part.leftward):
            merged[-1] = replace(last, text=last.text + part.text)
        else:
            merged.append(part)
    return tuple(merged)


def _in_order(made: tuple[Part, ...]) -> tuple[Part, ...]:
    """From left to right: leftward parts in reverse, in a line that begins with rightward text, or the other way."""
    if not any(part.leftward for part in made):
        return made
    shown = made if shapes() else tuple(_turned(part) for part in made)
    base = next(part.leftward for part in made if part.leftward is not None)
    levels = [base if part.leftward is None else part.leftward for part in shown]
    for place in range(1, len(levels) - 1):  # spaces between two parts of one direction go with them
        if shown[place].leftward is None and levels[place - 1] == levels[place + 1]:
            levels[place] = levels[place - 1]
    groups = [[part for _, part in group] for _, group in groupby(zip(levels, shown, strict=True), lambda p: p[0])]
    ways = [way for way, _ in groupby(levels)]
    turned = [group[::-1] if way else group for way, group in zip(ways, groups, strict=True)]
    return tuple(part for group in (turned[::-1] if base else turned) for part in group)


def _turned(part: Part) -> Part:
    """A leftward part with its characters in the order of the eye, without Raqm."""
    tell_of_shaping()
    return replace(part, text="".join(clusters(part.text)[::-1])) if part.leftward else part


def _direction(text: str) -> bool | None:
    ways = [unicodedata.bidirectional(character) for character in text]
    if any(way in ("R", "AL") for way in ways):
        return True
    return False if "L" in ways else None


def _leftward(text: str) -> bool:
    return bool(_direction(text))


def _length(part: Part, size: int) -> Number:
    face, scale = opened(part.path, size)
    return float(face.getlength(part.text)) * scale


def _paste(page: Image.Image, place: tuple[Number, Number], text: str, face: Any, scale: float) -> None:
    """Draw pictures of a font, such as emoji, at another size than theirs."""
    left, top, right, bottom = (round(value) for value in face.getbbox(text, anchor="ls"))
    if right <= left or bottom <= top:
        return
    large = Image.new("RGBA", (right - left, bottom - top), (255, 255, 255, 0))
    ImageDraw.Draw(large).text((-left, -top), text, (0, 0, 0), face, anchor="ls", embedded_color=True)
    small = large.resize(
        (max(1, round(large.width * scale)), max(1, round(large.height * scale))), Image.Resampling.LANCZOS
    )
    page.paste(small, (round(place[0] + left * scale), round(place[1] + top * scale)), small)


def _plain(text: str) -> str:
    """A label in one line."""
    return "".join(" " if unicodedata.category(character) in ("Cc", "Zl", "Zp") else character for character in text)


def _cut(word: str, width: int, size: int) -> str:
    while length(word.rstrip(), size) > width and len(word) > 1:
        word = "".join(clusters(word.rstrip().removesuffix("…"))[:-1]) + "…"
    return word


def _wide(word: str) -> bool:
    return any(
        unicodedata.east_asian_width(c) in "WF"
        or 0x0E00 <= ord(c) < 0x0F00
        or 0x1000 <= ord(c) < 0x10A0
        or 0x1780 <= ord(c) < 0x1800
        for c in word
    )


def _flag(before: str, character: str) -> bool:
    return len(before) == 1 and all(0x1F1E6 <= ord(c) <= 0x1F1FF for c in before + character)

"""Scripts and characters, as far as words depend on them: a few blocks of Unicode, and its character categories.

The rules are those of UAX 29 for the scripts that are written without spaces between words, and for emoji.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from functools import lru_cache
from typing import Final

Blocks = tuple[tuple[int, int], ...]  # first and last code points, in order

HAN: Final[Blocks] = (
    (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3038, 0x303B), (0x3105, 0x312F), (0x31A0, 0x31BF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF),
)  # fmt: skip
HIRAGANA: Final[Blocks] = ((0x3041, 0x309F), (0x1B001, 0x1B11F), (0x1B150, 0x1B152))
KATAKANA: Final[Blocks] = ((0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F))
SPELT: Final[Blocks] = (  # Thai and Lao, Burmese, Khmer, the Tai scripts
    (0x0E01, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF), (0xA9E0, 0xA9FF),
    (0xAA60, 0xAADF),
)  # fmt: skip
HANGUL: Final[Blocks] = ((0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF))
PICTURES: Final[Blocks] = (
    (0x2122, 0x2122), (0x2139, 0x2139), (0x2190, 0x21FF), (0x2300, 0x23FF), (0x25A0, 0x27BF), (0x2900, 0x297F),
    (0x2B00, 0x2BFF), (0x1F000, 0x1FAFF),
)  # fmt: skip
FLAG_LETTERS: Final[Blocks] = ((0x1F1E6, 0x1F1FF),)  # two of them are a flag
FOLLOWING: Final[Blocks] = (  # they belong to the character before them, though their category is no mark's
    (0x0E33, 0x0E33), (0x0EB3, 0x0EB3), (0x1160, 0x11FF), (0xD7B0, 0xD7FF), (0xFF9E, 0xFF9F), (0x1F3FB, 0x1F3FF),
)  # fmt: skip
STACKERS = frozenset("\u1039\u17d2")  # set the next letter below this one, in Burmese and Khmer
JOINER = "\u200d"  # zero width joiner: makes one emoji of several


def within(character: str, *scripts: Blocks) -> bool:
    """Whether a character is in one of these.

    >>> within("猫", HAN), within("a", HAN, HIRAGANA)
    (True, False)
    """
    code = ord(character)
    for blocks in scripts:
        place = bisect_right(blocks, code, key=lambda block: block[0]) - 1
        if place >= 0 and code <= blocks[place][1]:
            return True
    return False


@lru_cache(maxsize=4096)
def follows(character: str) -> bool:
    """Whether a character belongs to the one before it: a combining mark, or an invisible one."""
    category = unicodedata.category(character)
    return category[0] == "M" or category == "Cf" or within(character, FOLLOWING)


def clusters(text: str) -> list[tuple[int, int]]:
    """Character spans of what a reader takes for one character: a letter with its marks, an emoji of several.

    >>> clusters("e\u0301a"), clusters("👩\u200d🚀"), clusters("🇩🇪🇫🇷")
    ([(0, 2), (2, 3)], [(0, 3)], [(0, 2), (2, 4)])
    """
    if text.isascii():  # in which nothing belongs to the character before it
        return [(index, index + 1) for index in range(len(text))]
    spans: list[tuple[int, int]] = []
    for index, character in enumerate(text):
        before = text[index - 1] if index else ""
        start = spans[-1][0] if spans else 0
        inside = bool(before) and (
            follows(character)
            or before in STACKERS
            or (before == JOINER and within(character, PICTURES))
            or (index == start + 1 and within(before, FLAG_LETTERS) and within(character, FLAG_LETTERS))
        )
        if inside:
            spans[-1] = (start, index + 1)
        else:
            spans.append((index, index + 1))
    return spans

"""Words and runs of punctuation in a text, found by its characters alone.

A word is what stands between spaces and punctuation. Chinese, Japanese, Thai, Lao, Khmer and Burmese are written
without spaces; where a word ends there only a dictionary knows, and two dictionaries disagree. So each of their
characters, with the marks that belong to it, is a unit of its own, as in the default rules of Unicode (UAX 29), and a
run of katakana is one. A word of several characters is named as what it is, a part of the text: see `places`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from promptweave.words.scripts import (
    HAN,
    HANGUL,
    HIRAGANA,
    JOINER,
    KATAKANA,
    PICTURES,
    SPELT,
    clusters,
    follows,
    within,
)  # fmt: skip

JOINERS = frozenset("'’-‐‑_")  # these stay inside a word: "o'clock", "t-shirt"
DIGIT_JOINERS = frozenset(".,:/")  # and these between two digits: "1.5", "16:9"
BREAK = "\u200b"  # zero width space: between words, in Khmer and Thai
SELECTORS = range(0xFE00, 0xFE10)  # variation selectors: the same character in another look


def key(text: str) -> str:
    """The form in which words are compared: composed characters, lower case."""
    return unicodedata.normalize("NFC", text).lower()


def loose(text: str) -> str:
    """The form in which a selector is compared if no word equals it: without width and invisible characters, too.

    >>> loose("ＥTUDE") == loose("etude"), loose("Straße") == loose("STRASSE"), loose("❤\ufe0f") == loose("❤")
    (True, True, True)
    """
    seen = "".join(
        unicodedata.normalize("NFKC", c) if unicodedata.east_asian_width(c) in "FH" else c
        for c in text
        if (unicodedata.category(c) != "Cf" or c == JOINER) and ord(c) not in SELECTORS
    )
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", seen).casefold())


def is_punctuation(text: str) -> bool:
    """Whether a unit of `split` is a run of punctuation."""
    return unicodedata.category(text[0])[0] == "P" and not any(c.isalnum() for c in text)


def is_spelt(text: str) -> bool:
    """Whether a unit is a letter of a script that spells its words without spaces: Thai, Lao, Khmer, Burmese."""
    return within(text[0], SPELT)


def is_spaceless(text: str) -> bool:
    """Whether a unit belongs to a script that is written without spaces."""
    return within(text[0], HAN, HIRAGANA, KATAKANA, SPELT)


def split(text: str) -> list[tuple[int, int]]:
    """Character spans of the units: words, and the runs of punctuation beside them.

    >>> text = "don't, well-known 1.5! 一只猫"
    >>> [text[a:b] for a, b in split(text)]
    ["don't", ',', 'well-known', '1.5', '!', '一', '只', '猫']
    """
    kinds = _kinds(text)
    starts = {start for start, _ in clusters(text)}
    spans: list[tuple[int, int]] = []
    for index, kind in enumerate(kinds):
        if kind == "space":
            continue
        alone = kind == "alone" and index in starts and not follows(text[index])
        if index and kinds[index - 1] == kind and not alone:
            spans[-1] = (spans[-1][0], index + 1)
        else:
            spans.append((index, index + 1))
    return spans


def places(text: str, wanted: str) -> list[tuple[int, int]]:
    """Character spans at which `wanted` is a part of the text, from character to character, ignoring case.

    Only a text in a script without spaces, in Korean, whose words carry their particles, or of emoji has such parts:
    "cat" is no part of "category".

    >>> places("두 고양이가", "고양이"), places("category", "cat")
    ([(2, 5)], [])
    """
    wanted = wanted.strip()
    if not any(within(character, HAN, HIRAGANA, KATAKANA, SPELT, HANGUL, PICTURES) for character in wanted):
        return []
    sought = [loose(wanted[a:b]) for a, b in clusters(wanted)]
    spans = clusters(text)
    have = [loose(text[a:b]) for a, b in spans]
    found: list[tuple[int, int]] = []
    for first in range(len(have) - len(sought) + 1):
        if have[first : first + len(sought)] == sought and (not found or spans[first][0] >= found[-1][1]):
            found.append((spans[first][0], spans[first + len(sought) - 1][1]))
    return found


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """The kind of a character by itself."""
    if character.isspace() or character == BREAK:
        return "space"
    if unicodedata.category(character)[0] == "P":
        return "punctuation"
    if within(character, KATAKANA):
        return "katakana"
    alone = within(character, HAN, HIRAGANA, SPELT, PICTURES) and not character.isdigit()
    return "alone" if alone else "word"


def _kinds(text: str) -> list[str]:
    """The kind of each character: "word", "alone", "katakana", "punctuation" or "space".

    "alone" is a unit by itself. Combining marks, joiners and what else belongs to a character have that one's kind.
    """
    starts = {start for start, _ in clusters(text)}
    kinds: list[str] = []
    for index, character in enumerate(text):
        own = _kind(character)
        inside = own != "space" and (index not in starts or follows(character)) and kinds and kinds[-1] != "space"
        kinds.append(kinds[-1] if inside else own)
    if set(kinds) == {"space"}:
        return ["space" if character.isspace() else "word" for character in text]
    for i in range(1, len(text) - 1):
        between_words = kinds[i - 1] == kinds[i + 1] == "word"
        between_digits = text[i - 1].isdigit() and text[i + 1].isdigit()
        if between_words and (text[i] in JOINERS or (between_digits and text[i] in DIGIT_JOINERS)):
            kinds[i] = "word"
    return kinds


def joined(text: str, tokens: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The units of `split`, but two words that touch are one if a token reads them together, as no map can part them.

    `tokens`: character spans. A vocabulary with whole Chinese words has such tokens.

    >>> joined("小猫。", [(0, 2), (2, 3)])
    [(0, 2), (2, 3)]
    """
    across = {place for start, end in tokens for place in range(start + 1, end)}
    made: list[tuple[int, int]] = []
    for start, end in split(text):
        touching = made and made[-1][1] == start and start in across
        if touching and not any(is_punctuation(text[a:b]) for a, b in (made[-1], (start, end))):
            made[-1] = (made[-1][0], end)
        else:
            made.append((start, end))
    return made


def owners(
    offsets: Sequence[tuple[int, int]], body: Sequence[int], spans: Sequence[tuple[int, int]], characters: int
) -> list[tuple[int, ...]]:
    """The tokens of each span. A token belongs to the span that contains the first of its characters inside any span.

    A token of spaces alone, such as the marker that T5 sets before a word, belongs to the next word or, after the last
    word, to that one. A token without characters inside a word belongs to that word.
    """
    owner = [-1] * characters
    for unit, (start, end) in enumerate(spans):
        owner[start:end] = [unit] * (end - start)
    owned: list[list[int]] = [[] for _ in spans]
    current = 0
    for position in body if spans else ():
        start, end = offsets[position]
        found = next((unit for unit in owner[start : max(end, start + 1)] if unit >= 0), None)
        if found is None:
            found = next((unit for unit, (first, _) in enumerate(spans) if first >= start), current)
        current = max(current, found)
        owned[current].append(position)
    return [tuple(tokens) for tokens in owned]


def pieces(tokenizer: Any, ids: Sequence[int], offsets: Sequence[tuple[int, int]], prompt: str) -> tuple[str, ...]:
    """Decoded tokens; a token that is only part of a character is shown as that character."""
    texts = [str(tokenizer.decode([token])).strip() for token in ids]
    return tuple(
        prompt[a:b] if "\ufffd" in text and b > a else text for text, (a, b) in zip(texts, offsets, strict=False)
    )

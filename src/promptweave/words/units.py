"""Words and runs of punctuation in a text, found by its characters alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

JOINERS = frozenset("'’-‐‑_")  # these stay inside a word: "o'clock", "t-shirt"
DIGIT_JOINERS = frozenset(".,:/")  # and these between two digits: "1.5", "16:9"


def key(text: str) -> str:
    """The form in which words are compared: composed characters, lower case."""
    return unicodedata.normalize("NFC", text).lower()


def is_punctuation(text: str) -> bool:
    """Whether a unit of `split` is a run of punctuation."""
    return unicodedata.category(text[0])[0] == "P" and not any(c.isalnum() for c in text)


def split(text: str) -> list[tuple[int, int]]:
    """Character spans of the units: words, and the runs of punctuation beside them.

    >>> text = "don't, well-known 1.5!"
    >>> [text[a:b] for a, b in split(text)]
    ["don't", ',', 'well-known', '1.5', '!']
    """
    kinds = _kinds(text)
    spans: list[tuple[int, int]] = []
    for index, kind in enumerate(kinds):
        if kind == "space":
            continue
        if index and kinds[index - 1] == kind:
            spans[-1] = (spans[-1][0], index + 1)
        else:
            spans.append((index, index + 1))
    return spans


def _kinds(text: str) -> list[str]:
    """The kind of each character: "word", "punctuation" or "space"; combining marks have that of their character."""
    kinds: list[str] = []
    for character in text:
        category = unicodedata.category(character)
        if character.isspace():
            kinds.append("space")
        elif category[0] == "P":
            kinds.append("punctuation")
        elif category[0] == "M" or category == "Cf":
            kinds.append(kinds[-1] if kinds and kinds[-1] != "space" else "word")
        else:
            kinds.append("word")
    for i in range(1, len(text) - 1):
        between_words = kinds[i - 1] == kinds[i + 1] == "word"
        between_digits = text[i - 1].isdigit() and text[i + 1].isdigit()
        if between_words and (text[i] in JOINERS or (between_digits and text[i] in DIGIT_JOINERS)):
            kinds[i] = "word"
    return kinds


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

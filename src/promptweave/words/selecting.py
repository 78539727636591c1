"""What a selector names: a word, a phrase, a part of a text without spaces, a position, or two character offsets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from numbers import Integral
from operator import index
from typing import TYPE_CHECKING, Any, cast

from promptweave.core.shown import shown
from promptweave.words.units import key, loose, places, split

if TYPE_CHECKING:
    from promptweave.words.tokens import Word, Words

EXPANSION = 18  # characters that one becomes at most when it is normalised
LONGEST = 200  # characters of a selector for which similar words are sought
RULE = (
    'A word is chosen by its text ("cat", "cat#2"), its position in the prompt, from 0, or two character offsets '
    "(start, end)."
)


class WordNotFound(ValueError):
    """Raised for a selector that names no word of the prompt."""


class AmbiguousWord(ValueError):
    """Raised for a selector that names several words of the prompt."""


class BadSelector(ValueError):
    """Raised for a value that cannot name a word, whatever the prompt is."""


def chosen(words: Words, selector: Any, place: str) -> tuple[Word, ...]:
    """The units that a selector names, or one part of them. Raises WordNotFound, AmbiguousWord or BadSelector."""
    if isinstance(selector, str):
        return _named(words, selector, place)
    if _whole(selector):
        number = index(selector)
        if not 0 <= number < len(words.words):
            raise WordNotFound(
                f"The words of {place} have positions 0 to {len(words.words) - 1}. Received {shown(selector)}."
            )
        return (words.words[number],)
    pair: Sequence[Any] = cast("Sequence[Any]", selector) if isinstance(selector, tuple | list) else ()
    if len(pair) == 2 and all(map(_whole, pair)):
        return _between(words, index(pair[0]), index(pair[1]), place)
    raise BadSelector(f"{RULE} Received {shown(cast(object, selector))}.")


def occurrences(words: Words, text: str) -> tuple[tuple[Word, ...], ...]:
    """All runs of units that read as `text`, ignoring case; in a script without spaces, all parts that do."""
    if len(text) > EXPANSION * len(words.prompt):
        return ()
    for form in (key, loose):
        wanted = [form(text[a:b]) for a, b in split(text)]
        have = [form(unit.text) for unit in words.units]
        count = len(wanted)
        starts = [i for i in range(len(have) - count + 1) if wanted and have[i : i + count] == wanted]
        if starts:
            return tuple(words.units[i : i + count] for i in starts)
    return tuple(words.part(a, b) for a, b in places(words.prompt, text))


def _whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral)


def _between(words: Words, start: int, end: int, place: str) -> tuple[Word, ...]:
    if not 0 <= start < end <= len(words.prompt):
        raise WordNotFound(
            f"A span must satisfy 0 <= start < end <= {len(words.prompt)}, the length of {place}. "
            f"Received {shown((start, end))}."
        )
    inside = tuple(unit for unit in words.units if unit.start < end and unit.end > start)
    if not inside:
        raise WordNotFound(
            f"A span must contain a part of a word. Received {(start, end)} of {place}, {_quoted(words)}."
        )
    return inside


def _named(words: Words, selector: str, place: str) -> tuple[Word, ...]:
    found, text, which = occurrences(words, selector), selector, None
    numbered = re.fullmatch(r"(.*\S)#([0-9]{1,9})", selector, re.DOTALL)
    if numbered and not found:
        text, which = numbered[1], int(numbered[2])
        found = occurrences(words, text)
    if not found:
        raise WordNotFound(_not_found(words, text, place))
    if which is not None and not 1 <= which <= len(found):
        raise WordNotFound(
            f"{shown(text)} occurs {len(found)} time(s) in {place}, {_quoted(words)}. Received {shown(selector)}."
        )
    if which is None and len(found) > 1:
        options = " or ".join(f'"{text}#{k}"' for k in range(1, len(found) + 1))
        raise AmbiguousWord(f"{text!r} occurs {len(found)} times in {place}, {_quoted(words)}. Write {options}.")
    return found[(which or 1) - 1]


def _not_found(words: Words, text: str, place: str) -> str:
    close: list[str] = []
    near: dict[str, str] = {}
    if len(text) <= LONGEST:
        count = max(1, len(split(text)))
        runs = [words.units[i : i + count] for i in range(len(words.units) - count + 1)]
        seen = [words.prompt[run[0].start : run[-1].end] for run in runs]
        near = {key(each): each for each in seen}
        close = difflib.get_close_matches(key(text), near, 1)
    hint = f" Did you mean {near[close[0]]!r}?" if close else ""
    names = ", ".join(dict.fromkeys(word.text for word in words.words))
    return f"{shown(text)} is not a word of {place}, {_quoted(words)}.\nWords: {names}.{hint}"


def _quoted(words: Words) -> str:
    return f'"{words.prompt}"'

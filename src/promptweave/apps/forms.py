"""The command-line form of every option type, and its reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from promptweave.core.clock import Number, Span, Window
from promptweave.core.fields import Listed

Box = tuple[Number, Number, Number, Number]
Drawn = tuple[tuple[float, ...], ...]
Texts = Sequence[str]
LONGEST = 1000  # values of a range


@dataclass(frozen=True)
class Form:
    """`hint`: the parser's type (text, list of texts, flag). `read(texts, flag)`: the value."""

    hint: Any
    metavar: str
    read: Callable[[Texts, str], Any]
    show: Callable[[Any], str] = str


def form_of(listed: Listed) -> Form:
    """The form of an option's type. Raises TypeError for a type without one."""
    kind = listed.type
    parts = [part for part in get_args(kind) if part is not NoneType]
    if get_origin(kind) is not Literal and NoneType in get_args(kind):
        kind = reduce(or_, parts)
    if get_origin(kind) is Literal:
        return Form(str, "|".join(get_args(kind)), _first(lambda text, flag: choice(text, flag, get_args(kind))))
    if listed.default == math.inf:  # then infinity is a value that may be written, too
        return Form(
            str, "NUMBER|inf", _first(lambda text, flag: math.inf if text == "inf" else number(text, flag)), _plain
        )
    if kind not in FORMS:
        raise TypeError(f"The option {listed.flag} has the type {kind}, which has no form. Give it one in apps.forms.")
    return FORMS[kind]


def choice(text: str, flag: str, choices: Texts) -> str:
    """One of several choices."""
    if text not in choices:
        raise ValueError(f"{flag} is one of {', '.join(choices)}. Received {text!r}.")
    return text


def number(text: str, flag: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{flag} takes a number. Received {text!r}.") from None
    if not math.isfinite(value):
        raise ValueError(f"{flag} takes a finite number. Received {text!r}.")
    return value


def whole(text: str, flag: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{flag} takes a whole number. Received {text!r}.") from None


def span(text: str, flag: str) -> float | tuple[float, float]:
    """A fraction "0.8" or a range "0.2:0.8"."""
    begin, colon, end = text.partition(":")
    value = (number(begin, flag), number(end, flag)) if colon else number(text, flag)
    try:
        Window.of(value)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from error
    return value


def spans(texts: Texts, flag: str) -> Any:
    """One fraction or range for all words, or "word=0.4" for some words and one without a word for the rest."""
    words: dict[str, Any] = {}
    for text in texts:
        word, equals, value = text.rpartition("=")
        words[word if equals else "default"] = span(value, flag)
    return words["default"] if set(words) == {"default"} else words


def factors(texts: Texts, flag: str) -> dict[str, float]:
    """ "red=2" as {"red": 2.0}."""
    found: dict[str, float] = {}
    for text in texts:
        word, equals, value = text.rpartition("=")
        if not equals or not word:
            raise ValueError(f"{flag} takes word=factor, such as red=2. Received {text!r}.")
        found[word] = number(value, flag)
    return found


def pairs(texts: Texts, flag: str) -> tuple[tuple[float, float], ...]:
    """ "0.2=0.5" as ((0.2, 0.5),)."""
    found: list[tuple[float, float]] = []
    for text in texts:
        first, equals, second = text.partition("=")
        if not equals:
            raise ValueError(f"{flag} takes two numbers, such as 0.2=0.5. Received {text!r}.")
        found.append((number(first, flag), number(second, flag)))
    return tuple(found)


def boxes(texts: Texts, flag: str) -> tuple[tuple[str, Box], ...]:
    """ "dog=0,0,0.5,1" as (("dog", (0.0, 0.0, 0.5, 1.0)),)."""
    found: list[tuple[str, Box]] = []
    for text in texts:
        word, equals, sides = text.rpartition("=")
        parts = sides.split(",")
        if not equals or not word or len(parts) != 4:
            raise ValueError(f"{flag} takes word=left,top,right,bottom, such as dog=0,0,0.5,0.5. Received {text!r}.")
        left, top, right, bottom = (number(part, flag) for part in parts)
        found.append((word, (left, top, right, bottom)))
    return tuple(found)


def size_or_auto(text: str, flag: str) -> tuple[int, int] | str:
    """A size in pixels, or "auto"."""
    return text if text == "auto" else size(text, flag)


def size(text: str, flag: str = "--size") -> tuple[int, int]:
    """ "128x192" (height x width) or "128"."""
    from promptweave.editing.values import size_of

    return size_of(text, flag)


def drawn(text: str, flag: str) -> Drawn | str:
    """A mask image as rows of zeros and ones; diffedit[:OPTION=VALUE,...] is left to what finds it."""
    from promptweave.editing.masks import read_mask

    return text if text.partition(":")[0] == "diffedit" else read_mask(Path(text).expanduser(), flag)


def one_or_more(texts: Texts, flag: str) -> Any:
    """A single text unchanged, several as a tuple."""
    return texts[0] if len(texts) == 1 else tuple(texts)


def byte_count(text: str, flag: str = "--budget") -> int:
    """ "500M" or "2G" as bytes."""
    units = {"K": 1e3, "M": 1e6, "G": 1e9}
    unit = units.get(text[-1:].upper())
    return int(number(text[:-1] if unit else text, flag) * (unit or 1))


def series(text: str, flag: str) -> tuple[float, ...]:
    """A list of numbers "0,0.5,1" or a range "0,0.2,...,1", whose step is that of the first two."""
    parts = [part.strip() for part in text.split(",")]
    if "..." not in parts:
        return tuple(number(part, flag) for part in parts)
    place = parts.index("...")
    if place < 2 or place != len(parts) - 2:
        raise ValueError(f"{flag} takes numbers, or two numbers, '...' and the last: 0,0.2,...,1. Received {text!r}.")
    known, last = [number(part, flag) for part in parts[:place]], number(parts[-1], flag)
    step = known[-1] - known[-2]
    count = (last - known[-1]) / step if step else -1
    if count < 1 or abs(count - round(count)) > 1e-6:
        raise ValueError(f"{flag}: {last:g} is not reached from {known[-1]:g} in steps of {step:g}.")
    if count > LONGEST:
        raise ValueError(f"{flag} takes at most {LONGEST} values. Received {text!r:.100}. Give a larger step.")
    return (*known, *(round(known[-1] + step * (i + 1), 10) for i in range(round(count))))


def _first(read: Callable[[str, str], Any]) -> Callable[[Texts, str], Any]:
    return lambda texts, flag: read(texts[0], flag)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _span(value: Any) -> str:
    return _plain(value) if isinstance(value, int | float) else f"{Window.of(value).start:g}:{Window.of(value).end:g}"


_TEXT = Form(str, "TEXT", lambda texts, flag: texts[0])
_WINDOW = "FRACTION|BEGIN:END"
FORMS: dict[Any, Form] = {
    bool: Form(bool, "", lambda texts, flag: texts[0]),
    int: Form(str, "INTEGER", _first(whole)),
    float: Form(str, "NUMBER", _first(number), _plain),
    Number: Form(str, "NUMBER", _first(number), _plain),
    str: _TEXT,
    Path: Form(str, "PATH", _first(lambda text, flag: Path(text).expanduser())),
    Span: Form(str, _WINDOW, _first(span), _span),
    Number | tuple[Number, Number]: Form(str, _WINDOW, _first(span), _span),
    Span | Mapping[str, Span]: Form(list[str], f"[WORD=]{_WINDOW}", spans, _span),
    Mapping[str, Number]: Form(list[str], "WORD=NUMBER", factors),
    tuple[int, int]: Form(str, "PIXELS", _first(size), lambda value: "x".join(map(str, value))),
    tuple[int, int] | Literal["auto"]: Form(str, "PIXELS|auto", _first(size_or_auto)),
    tuple[str, ...]: Form(list[str], "TEXT", lambda texts, flag: tuple(texts), ", ".join),
    tuple[Number, ...]: Form(
        list[str], "NUMBERS", lambda texts, flag: tuple(n for t in texts for n in series(t, flag))
    ),
    tuple[int, ...]: Form(list[str], "INTEGER", lambda texts, flag: tuple(whole(text, flag) for text in texts)),
    tuple[str, ...] | str: Form(list[str], "TEXT", one_or_more),
    Sequence[str] | str: Form(list[str], "TEXT", lambda texts, flag: tuple(texts)),
    tuple[str | tuple[int, int], ...]: Form(list[str], "TEXT", lambda texts, flag: tuple(texts)),
    tuple[tuple[Number, Number], ...]: Form(
        list[str], "NUMBER=NUMBER", pairs, lambda value: ", ".join(f"{a:g}={b:g}" for a, b in value)
    ),
    Mapping[str, Box] | tuple[tuple[str, Box], ...]: Form(list[str], "WORD=LEFT,TOP,RIGHT,BOTTOM", boxes),
    Drawn: Form(str, "FILE", _first(drawn)),
    Sequence[Sequence[float]]: Form(str, "FILE", _first(drawn)),
    tuple[Drawn, Drawn]: Form(tuple[str, str], "FILE FILE", lambda texts, flag: tuple(drawn(t, flag) for t in texts)),
}

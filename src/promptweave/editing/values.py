"""One reader of values, for Python, job files, recipes and the HTTP API: checked against the type of a field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from math import inf, isfinite
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from promptweave.core.clock import Window
from promptweave.core.fields import Listed, options_of
from promptweave.core.shown import shown

SEQUENCES = (Sequence, tuple, list)
MAPPINGS = (Mapping, dict)
NOT_FINITE = ("inf", "-inf", "nan")  # numbers that JSON does not have, as text


class BadValue(ValueError):
    """A value of another type, or out of its range."""


class _Other(Exception):
    """A value that a type does not have."""


def read_value(kind: Any, value: Any, name: str = "The value") -> Any:
    """The value as a field of this type holds it: lists become tuples, and numbers of numpy Python's.

    Raises BadValue, which names the field.

    >>> read_value(tuple[int, int] | None, [24, 40])
    (24, 40)
    >>> read_value(int, "3", "seed")
    Traceback (most recent call last):
    promptweave.editing.values.BadValue: seed must be a whole number. Received '3'.
    """
    try:
        return _read(kind, value)
    except _Other:
        raise BadValue(f"{name} must be {told(kind)}. Received {shown(value)}.") from None
    except RecursionError:
        raise BadValue(f"{name} must be {told(kind)}. Received lists nested too deeply to read.") from None
    except BadValue:
        raise
    except ValueError as error:  # of a window
        raise BadValue(f"{name}: {error}") from error


def read_option(listed: Listed, value: Any, owner: str = "") -> Any:
    """The value of an option; also checks its range. `owner`: what has the option, for the message."""
    if value is listed.default:
        return value
    name = f"{owner}{listed.name}"
    read, option = read_value(listed.type, value, name), listed.option
    if Window in _members(listed.type):
        return read  # windows check themselves
    low, high = option.low, option.high
    unbounded = listed.default in (inf, -inf)  # then infinity is a value that may be given, too
    for number in _numbers(read):
        finite = isfinite(number) or (unbounded and number == listed.default)
        if not finite or (low is not None and number < low) or (high is not None and number > high):
            limits = [] if finite else ["finite"]
            limits += [f"at least {low}"] if low is not None else []
            limits += [f"at most {high}"] if high is not None and high < 2**31 else []
            raise BadValue(f"{name} must be {', '.join([told(listed.type), *limits])}. Received {shown(value)}.")
    return read


def read_options(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given of a dataclass, checked."""
    known = {listed.name: listed for listed in options_of(kind)}
    return {name: read_option(known[name], value) for name, value in given.items()}


def numeric(listed: Listed) -> bool:
    """Whether an option is a number with a range, so that it can be an axis or a slider."""
    ranged = listed.option.low is not None or listed.option.high is not None
    return ranged and bool({int, float} & set(_members(listed.type)))


def whole(listed: Listed) -> bool:
    """Whether an option is a whole number."""
    members = _members(listed.type)
    return int in members and float not in members


def size_of(text: str, name: str = "size") -> tuple[int, int]:
    """ "128x192" (height x width) or "128" in pixels. Raises BadValue, which names the field.

    >>> size_of("128x192"), size_of("128")
    ((128, 192), (128, 128))
    """
    height, _, width = text.lower().replace("×", "x").partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise BadValue(
            f"{name} takes pixels, such as 512 or 512x768 (height x width). Received {shown(text)}."
        ) from None


def nearest(name: str, known: Sequence[str]) -> str:
    """ "Did you mean ...?", or all that there is.

    >>> nearest("self_atention", ["cross", "self_attention"])
    'Did you mean self_attention?'
    """
    found = get_close_matches(name, known, 1)
    return f"Did you mean {found[0]}?" if found else f"There are {', '.join(known)}."


@cache
def told(kind: Any) -> str:
    """A type for people.

    >>> told(int | None), told(tuple[str, ...])
    ('a whole number', 'a list (each text)')
    """
    members = [member for member in _members(kind) if member is not NoneType] or [NoneType]
    parts = ["a number"] if float in members else ["a whole number"] if int in members else []
    parts += [_said(member) for member in members if member not in (int, float)]
    return " or ".join(dict.fromkeys(parts))


def _said(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"{len(inner)} values (each {' or '.join(dict.fromkeys(map(told, inner)))})"
    if origin in SEQUENCES:
        return f"a list (each {told(inner[0])})"
    if origin in MAPPINGS:
        return f"a mapping (from {told(inner[0])} to {told(inner[1])})"
    plain = {bool: "true or false", str: "text", Window: "a window", NoneType: "None"}
    return plain.get(kind) or getattr(kind, "__name__", str(kind))


@cache
def _members(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the type."""
    if get_origin(kind) in (Union, UnionType):
        return tuple(member for part in get_args(kind) for member in _members(part))
    return (kind,)


def _read(kind: Any, value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's and torch's
        value = value.tolist()
    members = _members(kind)
    if Window in members and not isinstance(value, Mapping | NoneType):
        read = _window(value)
        return read if len(members) > 1 else Window.of(read)
    for member in members:
        try:
            return _one(member, value)
        except _Other:
            continue
    raise _Other


def _window(value: Any) -> Any:
    if isinstance(value, Window):
        return value
    if isinstance(value, tuple | list) and len(value) == 2:
        value = (_number(value[0]), _number(value[1]))
    else:
        value = _number(value)
    Window.of(value)  # raises on what is none
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _Other
    if isinstance(value, Integral):
        whole = int(value)
        if not -(2**63) <= whole < 2**63:  # all that a tensor holds
            raise _Other
        return whole
    return float(value)


def _numbers(read: Any) -> Iterator[int | float]:
    """All numbers in a value that was read, at any depth."""
    if isinstance(read, Mapping | tuple):
        for each in read.values() if isinstance(read, Mapping) else read:
            yield from _numbers(each)
    elif isinstance(read, int | float) and not isinstance(read, bool):
        yield read


def _one(kind: Any, value: Any) -> Any:
    """The value of a type that is no union."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return frozen(value)
    if kind is int or kind is float:  # of a union of both, whole numbers are read by the first
        if kind is float and value in NOT_FINITE:
            return float(value)
        number = _number(value)
        if kind is float:
            return float(number)
        if isinstance(number, int):
            return number
    elif origin is Literal:
        if value.__class__ in {each.__class__ for each in inner} and value in inner:
            return value
    elif origin in MAPPINGS:
        if isinstance(value, Mapping):
            return {_read(inner[0], key): _read(inner[1], each) for key, each in value.items()}
    elif origin in SEQUENCES:
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return _sequence(origin, inner, value)
    elif isinstance(kind, type) and isinstance(value, kind):
        if kind is str and not (value.isascii() or _written(value)):
            raise BadValue(f"{shown(value)} is no text: half of a pair of surrogates stands in it. Take it out.")
        return value
    raise _Other


def _written(text: str) -> bool:
    """Whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sequence(origin: Any, inner: tuple[Any, ...], value: Sequence[Any]) -> tuple[Any, ...]:
    if origin is tuple and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise _Other
        return tuple(_read(part, each) for part, each in zip(inner, value, strict=True))
    if inner[0] is float and all(each.__class__ is float for each in value):  # of large masks
        return tuple(value)
    return tuple(_read(inner[0], each) for each in value)


def strict(value: Any) -> Any:
    """The value with numbers that JSON does not have as text, at any depth; `read_value` reads them as numbers.

    >>> strict({"sigma": float("inf"), "sizes": (1, 2.5)})
    {'sigma': 'inf', 'sizes': [1, 2.5]}
    """
    if isinstance(value, Mapping):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [strict(each) for each in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def as_json(value: Any, indent: int | None = None) -> str:
    """The value as strict JSON, without NaN and Infinity, which other programs refuse."""
    return json.dumps(strict(value), indent=indent, ensure_ascii=False, allow_nan=False)


def frozen(value: Any) -> Any:
    """Lists as tuples, at any depth, where no type is known."""
    if isinstance(value, Mapping):
        return {key: frozen(each) for key, each in value.items()}
    return tuple(frozen(each) for each in value) if isinstance(value, list) else value

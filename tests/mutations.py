"""Damaged JSON: seeded mutations of a record, of the text that holds it and of the file that holds the text."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

JUNK: list[Any] = [
    None, True, False, 0, -1, 3, 2**31, 2**63, 10**30, -(10**400), 1e300, -0.5, float("nan"), float("inf"), "", "x",
    "NaN", "../../etc/passwd", "/etc", "a/b", "https://example.com/m", "\x00", "\ud800", "猫", "a" * 5000,
    "promptweave.methods:Replace", "ÿ", [], [[]], [[[[[[]]]]]], [1, "2", None], ["a", "b"], [0.2, 0.8], [None] * 50,
    [[0, 1], [2]], [{"control": "Replace"}], {}, {"": 0}, {"cat": 1}, {"cat": [0, 1, 2]}, {"default": "x"},
    {"control": "Replace", "class": "os:system"},
]  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in parts:
        yield (*at, key)
        yield from places(inner, (*at, key))


def mutated(record: Any, draw: random.Random) -> Any:
    """The record with one or two of its values exchanged, deleted, renamed, nested or taken from elsewhere."""
    record = copy.deepcopy(record)
    for _ in range(draw.choice((1, 1, 1, 2))):
        paths = list(places(record))
        if not paths:
            return record
        *way, last = draw.choice(paths)
        inside = record
        for key in way:
            inside = inside[key]
        value, kind = inside[last], draw.randrange(8)
        if kind == 0:
            del inside[last]
        elif kind == 1 and isinstance(inside, dict):
            inside[draw.choice((f"{last}x", "", "control", "promptweave"))] = inside.pop(last)
        elif kind == 2:
            inside[last] = [value]
        elif kind == 3 and isinstance(value, list | str) and value:
            inside[last] = value[: draw.randrange(len(value))] if draw.random() < 0.5 else value * 2
        elif kind == 4 and isinstance(value, int | float) and not isinstance(value, bool):
            inside[last] = draw.choice((-value, value * 10**30, str(value), [value, value], value + 0.5))
        elif kind == 5:
            nested: Any = value
            for _ in range(draw.choice((2, 30, 2000))):
                nested = [nested] if draw.random() < 0.5 else {"a": nested}
            inside[last] = nested
        else:
            inside[last] = copy.deepcopy(draw.choice(JUNK))
    return record


def damaged(record: Any, draw: random.Random) -> str:
    """The text of a mutated record, sometimes cut off or with a few characters exchanged."""
    try:
        text = json.dumps(mutated(record, draw))
    except RecursionError:
        text = "[" * 100_000
    kind = draw.randrange(10)
    if kind == 0:
        return text[: draw.randrange(len(text))]
    if kind == 1:
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(text))
            text = text[:at] + draw.choice('{}[]",:0e-\\ \x00é') + text[at + 1 :]
    return text


def flipped(data: bytes, draw: random.Random) -> bytes:
    """A file with some bits flipped, or cut off."""
    if draw.random() < 0.3:
        return data[: draw.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(draw.randrange(1, 6)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)

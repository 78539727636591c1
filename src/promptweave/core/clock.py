"""Steps of a run, and windows of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from promptweave.core.shown import shown

Number = int | float  # beartype does not accept an int as a float
LARGEST = 10_000  # of a factor: attention times it fits into half precision
ROUNDING = 1e-6  # so that 0.29 of 100 steps is 29, not 28


@dataclass(frozen=True)
class Step:
    """Step `index` of `count` (0 is the noisiest), from training time `t` to `t_next` (below 0: the clean end).

    `call`: number of the network call in the run, from 0; it runs ahead of `index` once the solver has made several
    calls in a step. `before_step` sees the number of the step's first call, `after_step` that of its last.
    """

    index: int
    count: int
    t: int | float
    t_next: int | float
    call: int = 0


@dataclass(frozen=True)
class Window:
    """The steps of a run from the fraction `start` up to, but not including, the fraction `end`.

    Raises ValueError unless 0 <= start <= end <= 1.

    >>> Step(39, 50, 201, 181) in Window(0.0, 0.8), Step(40, 50, 181, 161) in Window(0.0, 0.8)
    (True, False)
    """

    start: int | float = 0.0
    end: int | float = 1.0

    def __post_init__(self) -> None:
        if not (is_number(self.start) and is_number(self.end)):
            raise ValueError(
                f"A window is two finite numbers in [0, 1]. Received {shown(self.start)}, {shown(self.end)}."
            )
        if not 0 <= float(self.start) <= float(self.end) <= 1:
            raise ValueError(
                "A window must satisfy 0 <= start <= end <= 1 (fractions of the steps). "
                f"Received {shown(self.start)}, {shown(self.end)}."
            )

    @classmethod
    def of(cls, value: Any, name: str = "A window") -> Window:
        """A window from a number f, which means (0, f), or from a pair. Raises ValueError, naming `name`, otherwise.

        >>> Window.of(0.4)
        Window(start=0.0, end=0.4)
        """
        if isinstance(value, Window):
            return value
        pair = [0.0, value] if is_number(value) else _items(value)
        if len(pair) != 2 or not all(map(is_number, pair)):
            raise ValueError(
                f"{name} is one number or a pair of them, finite numbers in [0, 1] (fractions of the steps). "
                f"Received {shown(value)}."
            )
        start, end = map(float, pair)
        if not 0 <= start <= end <= 1:
            raise ValueError(
                f"{name} must satisfy 0 <= start <= end <= 1 (fractions of the steps). Received {shown(value)}."
            )
        return cls(start, end)

    @classmethod
    def since(cls, value: Any, name: str) -> Window:
        """The steps from the fraction `value` to the end of the run.

        >>> Window.since(0.2, "start")
        Window(start=0.2, end=1.0)
        """
        return cls(fraction(value, name), 1.0)

    @classmethod
    def check(cls, spans: Any, name: str) -> None:
        """Raise unless this is a window, or a mapping from words to windows."""
        parts: list[Any] = list(spans.values()) if isinstance(spans, Mapping) else [spans]  # pyright: ignore
        for span in parts:
            cls.of(span, name)

    def steps(self, count: int) -> range:
        """Indices of the window's steps in a run of `count` steps."""
        return range(math.floor(self.start * count + ROUNDING), math.floor(self.end * count + ROUNDING))

    def __contains__(self, step: Step) -> bool:
        return step.index in self.steps(step.count)


Span = Number | tuple[Number, Number] | Window  # what `Window.of` takes


def fraction(value: Any, name: str, *, below: bool = False) -> float:
    """A number in [0, 1], or in [0, 1) if it must be `below` 1. Raises ValueError, naming `name`, otherwise.

    >>> fraction(0.2, "start")
    0.2
    """
    if not is_number(value) or not 0 <= value <= 1 or (below and value == 1):
        raise ValueError(f"{name} is a fraction, one number in [0, 1{')' if below else ']'}. Received {shown(value)}.")
    return float(value)


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else []  # pyright: ignore[reportUnknownArgumentType]


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number, of Python or numpy, that fits into a float.

    >>> is_number(1.5), is_number(True), is_number("1"), is_number(10**400)
    (True, False, False, False)
    """
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:
        return False

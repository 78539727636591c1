"""When: steps of a schedule and windows of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

ROUNDING = 1e-6  # so that 0.29 of 100 steps is 29, not 28


@dataclass(frozen=True)
class Step:
    """Step `index` of `count` (0 is the noisiest), at training time `t`, going to `t_next` (below 0: the clean end).

    `call`: number of the network call in the run, from 0; above `index` after a step for which the solver made several.
    Before a step it is that of the step's first call, after it that of its last.
    """

    index: int
    count: int
    t: int | float
    t_next: int | float
    call: int = 0


@dataclass(frozen=True)
class Window:
    """The steps from share `start` to share `end` of a run, the end left out.

    >>> Step(39, 50, 201, 181) in Window(0.0, 0.8), Step(40, 50, 181, 161) in Window(0.0, 0.8)
    (True, False)
    """

    start: int | float = 0.0
    end: int | float = 1.0

    def __post_init__(self) -> None:
        for value in (self.start, self.end):
            if isinstance(value, bool) or not math.isfinite(value):
                raise ValueError(f"A window is two finite numbers in [0, 1]. Received {self.start!r}, {self.end!r}.")
        if not 0 <= self.start <= self.end <= 1:
            raise ValueError(
                f"A window must satisfy 0 <= start <= end <= 1 (shares of steps). Received {self.start}, {self.end}."
            )

    @classmethod
    def of(cls, value: int | float | tuple[int | float, int | float] | Window) -> Window:
        """A number f means (0, f).

        >>> Window.of(0.4)
        Window(start=0.0, end=0.4)
        """
        if isinstance(value, Window):
            return value
        if isinstance(value, tuple | list):
            if len(value) != 2:
                raise ValueError(f"A window is one number or a pair. Received {value}.")
            return cls(*value)
        return cls(0.0, value)

    def steps(self, count: int) -> range:
        """The indices of the steps inside, of `count`."""
        return range(math.floor(self.start * count + ROUNDING), math.floor(self.end * count + ROUNDING))

    def __contains__(self, step: Step) -> bool:
        return step.index in self.steps(step.count)

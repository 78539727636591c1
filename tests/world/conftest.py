"""Trainings end after so many steps, not after so many seconds: the clock ticks when it is read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from promptweave.world import training

TICK = 0.1  # seconds; a step of training reads the clock about four times


class Ticking:
    """A stand-in for the module `time`, equally fast on every machine."""

    def __init__(self) -> None:
        self.now = 1e6

    def time(self) -> float:
        self.now += TICK
        return self.now


@pytest.fixture(scope="module", autouse=True)
def ticking() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "time", Ticking())
        yield

"""What each method does for the thing it exists for, against plain generation on the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from promptweave.models.base import Model

# name of the method -> the function that measures it, in a file of its own
MEASURES = {
    "attend": "promptweave.apps.measure_attend:measure",
    "place": "promptweave.apps.measure_place:measure",
    "compose": "promptweave.apps.measure_compose:measure",
}


@dataclass(frozen=True)
class Measured:
    """A figure with the method and without: what it is, both values, and how many pictures it is the mean of."""

    method: str
    what: str
    plain: float
    steered: float
    count: int


Measure = Callable[..., list[Measured]]  # (model, *, count, steps, seed, progress) -> figures


def bench_methods(
    model: Model, names: tuple[str, ...] = (), *, count: int = 100, steps: int = 20, seed: int = 5000,
    progress: Callable[[], Any] | None = None,
) -> list[Measured]:  # fmt: skip
    """The figures of the methods `names` (all), over `count` seeded prompts each; `progress` after every picture."""
    unknown = set(names) - set(MEASURES)
    if unknown:
        raise ValueError(f"Methods that can be measured: {', '.join(MEASURES)}. Received {', '.join(sorted(unknown))}.")
    figures: list[Measured] = []
    for name in names or MEASURES:
        module, function = MEASURES[name].split(":")
        measure: Measure = getattr(import_module(module), function)
        figures += measure(model, count=count, steps=steps, seed=seed, progress=progress)
    return figures

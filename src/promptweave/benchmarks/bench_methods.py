"""What each method does for the thing it exists for, against plain generation on the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from promptweave.editing.plan import usual
from promptweave.models.base import Model

# name of the method -> the function that measures it, in a file of its own
MEASURES = {
    "attend": "promptweave.benchmarks.measure_attend:measure",
    "place": "promptweave.benchmarks.measure_place:measure",
    "compose": "promptweave.benchmarks.measure_compose:measure",
    "translate": "promptweave.benchmarks.measure_translate:measure",
    "masactrl": "promptweave.benchmarks.measure_masactrl:measure",
    "pnp": "promptweave.benchmarks.measure_given:measure_plug_and_play",
    "given": "promptweave.benchmarks.measure_given:measure_given",
}


@dataclass(frozen=True)
class Measured:
    """A figure with the method and without: what it is, both values, and how many pictures it is the mean of.

    `beside`: that of Prompt-to-Prompt on the same pictures, for methods that edit.
    """

    method: str
    what: str
    plain: float
    steered: float
    count: int
    beside: float | None = None


def means(method: str, names: Sequence[str], found: Sequence[np.ndarray]) -> list[Measured]:
    """Of each pair's [edits, figures], edits being no control, the method and Prompt-to-Prompt: means over the pairs in
    which all three have the figure; NaN is none. A figure of no pair is left out."""
    made: list[Measured] = []
    for place, what in enumerate(names):
        known = [pair[:, place] for pair in found if np.isfinite(pair[:, place]).all()]
        if known:
            plain, steered, beside = map(float, np.mean(known, axis=0))
            made.append(Measured(method, what, plain, steered, len(known), beside))
    return made


Measure = Callable[..., list[Measured]]  # (model, *, count, steps, guidance, seed, progress) -> figures


def bench_methods(
    model: Model, names: tuple[str, ...] = (), *, count: int = 100, steps: int = 20,
    guidance: int | float | None = None, seed: int = 5000, progress: Callable[[], Any] | None = None,
) -> list[Measured]:  # fmt: skip
    """The figures of the methods `names` (all), over `count` seeded prompts each, with the guidance that suits the
    model unless given; `progress` after every picture."""
    unknown = set(names) - set(MEASURES)
    if unknown:
        raise ValueError(f"Methods that can be measured: {', '.join(MEASURES)}. Received {', '.join(sorted(unknown))}.")
    strength = usual(model, steps, guidance)[1]
    figures: list[Measured] = []
    for name in names or MEASURES:
        module, function = MEASURES[name].split(":")
        measure: Measure = getattr(import_module(module), function)
        figures += measure(model, count=count, steps=steps, guidance=strength, seed=seed, progress=progress)
    return figures

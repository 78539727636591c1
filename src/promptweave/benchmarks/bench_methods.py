"""Each method measured on its purpose, against plain generation with the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from promptweave.editing.plan import usual
from promptweave.models.base import Model

# name of the method -> the function that measures it
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
    """A figure with the method and without: its name, both values, and the number of images averaged.

    `beside`: the figure of Prompt-to-Prompt on the same images, for methods that edit.
    """

    method: str
    what: str
    plain: float
    steered: float
    count: int
    beside: float | None = None


def means(method: str, names: Sequence[str], found: Sequence[np.ndarray]) -> list[Measured]:
    """Means of [edits, figures] over pairs, the edits being no control, the method and Prompt-to-Prompt.

    A pair counts if all three edits have the figure (NaN: it has none). A figure that no pair has is left out."""
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
    """The figures of the methods `names` (default: all), over `count` seeded prompts each.

    `guidance`: None for the model's. `progress` is called after every image. Raises ValueError for unknown names."""
    unknown = set(names) - set(MEASURES)
    if unknown:
        raise ValueError(
            f"Methods that can be measured: {', '.join(MEASURES)}. Received {', '.join(sorted(unknown))}. "
            "Name some of these."
        )
    strength = usual(model, steps, guidance)[1]
    figures: list[Measured] = []
    for name in names or MEASURES:
        module, function = MEASURES[name].split(":")
        measure: Measure = getattr(import_module(module), function)
        figures += measure(model, count=count, steps=steps, guidance=strength, seed=seed, progress=progress)
    return figures

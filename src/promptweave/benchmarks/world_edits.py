"""The edits of `bench world`: those of a pair share an inversion and, where a method allows it, the source's rows."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from promptweave.benchmarks.swept import Method, Setup
from promptweave.editing.edit import run_many
from promptweave.editing.inverted_file import InvertedImage
from promptweave.editing.masks import with_controls
from promptweave.editing.picture import Picture
from promptweave.editing.plan import bind
from promptweave.editing.recipe import Recipe
from promptweave.editing.start import start
from promptweave.models.base import Model
from promptweave.world.counterfactuals import Counterfactual


@dataclass(frozen=True)
class Runs:
    """What all runs have in common: of `Recipe`, and whether the sources are `given` as images."""

    steps: int
    guidance: int | float
    seed: int
    given: bool


@dataclass(frozen=True, eq=False)
class Made:
    """An edit, uint8 [height, width, 3], or why there is none. `inversion`: empty where the source was generated.
    `seconds`: with the inversion, as if it were made alone."""

    image: np.ndarray | None
    inversion: str
    seconds: float = math.nan
    failure: str = ""


@dataclass(frozen=True)
class Joint:
    """A run with edits of several strengths: strength -> the row of its image."""

    pair: Counterfactual
    recipe: Recipe
    rows: Mapping[float, int]


def made_edits(
    model: Model, method: Method, values: Sequence[float], pairs: Sequence[Counterfactual],
    images: Sequence[np.ndarray], runs: Runs,
) -> list[dict[float, Made]]:  # fmt: skip
    """For each pair, whose source's image is in `images`, the edit of each strength."""
    found: list[dict[float, Made]] = [{} for _ in pairs]
    asked: list[Joint] = []
    for pair, image, own in zip(pairs, images, found, strict=True):
        single: dict[float, Joint] = {}
        for value in values:
            try:
                setup = method.make(model, pair, value)
                single[value] = Joint(pair, recipe_of(model, pair, image, setup, runs), {value: setup.row})
                bind(single[value].recipe, model)
            except ValueError as error:
                single.pop(value, None)
                own[value] = Made(None, "direct" if runs.given else "", failure=str(error))
        asked += _together(list(single.values())) if method.together else list(single.values())
    for joint, made in zip(asked, run_each(model, asked), strict=True):
        found[pairs.index(joint.pair)] |= made
    return found


def recipe_of(model: Model, pair: Counterfactual, image: np.ndarray, setup: Setup, runs: Runs) -> Recipe:
    """The run of one edit."""
    given = runs.given or setup.given
    recipe = Recipe(
        pair.source, (pair.source if setup.same else pair.target,), seed=runs.seed + pair.number, steps=runs.steps,
        guidance=runs.guidance, model=model.name, scheduler=model.scheduler,
        picture=Picture.of(image, model.default_size) if given else None,
        inversion=setup.inversion if given else "direct",
    )  # fmt: skip
    return with_controls(recipe, setup.controls, model)


def _together(single: Sequence[Joint]) -> list[Joint]:
    """One run for all: a target for each strength, whose controls act on it alone."""
    if len(single) < 2:
        return list(single)
    controls = [
        replace(control, targets=(row,))  # pyright: ignore[reportCallIssue]
        for row, joint in enumerate(single, 1)
        for control in joint.recipe.controls
    ]
    first = single[0]
    recipe = replace(first.recipe, targets=first.recipe.targets * len(single), controls=tuple(controls))
    return [Joint(first.pair, recipe, {value: row for row, joint in enumerate(single, 1) for value in joint.rows})]


def run_each(model: Model, asked: Sequence[Joint]) -> list[dict[float, Made]]:
    """The edits of runs that share forward passes; where one cannot be run, all are run alone, to say which and why."""
    if not asked:
        return []
    try:
        known = [inverted(model, joint.recipe) for joint in asked]
        begin = time.perf_counter()
        results = run_many([joint.recipe for joint in asked], model, recordings=[each for each, _ in known])
        spent = (time.perf_counter() - begin) / sum(len(joint.rows) for joint in asked)
    except ValueError as error:
        if len(asked) > 1:
            return [run_each(model, [joint])[0] for joint in asked]
        return [{value: Made(None, _inversion(asked[0].recipe), failure=str(error)) for value in asked[0].rows}]
    return [
        {
            value: Made(result.sample.pictures[row, 0], _inversion(joint.recipe), spent + before)
            for value, row in joint.rows.items()
        }
        for joint, result, (_, before) in zip(asked, results, known, strict=True)
    ]


def _inversion(recipe: Recipe) -> str:
    return "" if recipe.picture is None else recipe.inversion


def inverted(model: Model, recipe: Recipe) -> tuple[InvertedImage | None, float]:
    """The inversion of a run's image and the seconds that it took; None for one that needs no inversion."""
    if recipe.picture is None or any("noise" not in control.needs for control in recipe.controls):
        return None, 0.0
    return _found(model, replace(recipe, targets=(), controls=()))


@lru_cache(maxsize=256)
def _found(model: Model, recipe: Recipe) -> tuple[InvertedImage, float]:
    begin = time.perf_counter()
    found = start(recipe, model).inverted
    assert found is not None
    return InvertedImage(recipe, model.fingerprint(), found, math.nan), time.perf_counter() - begin

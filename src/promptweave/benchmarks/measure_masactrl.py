"""MasaCtrl: is the target shown, and does the thing from the source keep its appearance?"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptweave.benchmarks.bench_edits import beyond
from promptweave.benchmarks.bench_methods import Measured, means
from promptweave.benchmarks.judging import oracle
from promptweave.methods import MasaCtrl, Refine
from promptweave.models.base import Model
from promptweave.sampling.loop import Job, noise_for, sample_jobs
from promptweave.world.caption import caption
from promptweave.world.scene import ANIMALS, RELATIONS, Scene, random_scene

BATCH = 8  # runs per batch, four images each
NONE = float("nan")


@dataclass(frozen=True)
class Change:
    """A second thing joins the source's: its noun, the colour that only the source names, all nouns of the target."""

    source: str
    target: str
    noun: str
    colour: str | None
    nouns: tuple[str, ...]

    @classmethod
    def of(cls, scene: Scene, index: int, target: Scene) -> Change:
        """From a single thing of a scene to the target."""
        thing, nouns = scene.things[index], tuple(thing.noun for thing in target.things)
        alone = scene.with_(relation="alone", things=(thing,))
        return cls(caption(alone), caption(target), thing.noun, thing.colour, nouns)


def company(rng: random.Random) -> Change:
    """An animal rides, eats, wears or stands next to something."""
    while True:
        scene = random_scene(rng, relation=rng.choice(RELATIONS[1:]))
        places = [place for place, thing in enumerate(scene.things) if thing.noun in ANIMALS]
        if places:
            return Change.of(scene, places[0], scene)


def unsaid(rng: random.Random) -> Change:
    """A second thing joins a coloured one, and the target names no colours."""
    while True:
        scene = random_scene(rng, relation=rng.choice(RELATIONS[1:]))
        places = [place for place, thing in enumerate(scene.things) if thing.colour]
        if places and scene.style != "sketch":
            return Change.of(scene, places[0], scene.with_(0, colour=None).with_(1, colour=None))


def colour_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Distance of the mean colours of two sets of pixels, uint8 [pixels, 3], 0 to 1; NaN if one is empty."""
    if not len(first) or not len(second):
        return NONE
    return float(np.sqrt(np.mean((first.mean(0) / 255 - second.mean(0) / 255) ** 2)))


def looks(change: Change, pictures: np.ndarray) -> np.ndarray:
    """For images [source, edits ...], by edit: whether all things are there, and the distances of the mean colours
    of the thing and of the background to the source's. NaN unless the thing is in all images, so that all edits are
    averaged over the same pairs."""
    sights = oracle().look(pictures)
    seen = all(sight.has(change.noun) for sight in sights)
    things = [picture[sight.regions[change.noun]] for picture, sight in zip(pictures, sights, strict=True)]
    rest = [picture[beyond(list(sight.regions), sight)] for picture, sight in zip(pictures, sights, strict=True)]
    return np.array(
        [
            (
                all(sights[row].has(noun) for noun in change.nouns),
                colour_distance(things[0], things[row]) if seen else NONE,
                colour_distance(rest[0], rest[row]) if seen else NONE,
            )
            for row in range(1, len(pictures))
        ]
    )


def colour(change: Change, pictures: np.ndarray) -> np.ndarray:
    """For each edit, whether the thing has the source's colour; NaN unless the source has it and all show the thing."""
    sights = oracle().look(pictures)
    seen = sights[0].has(change.noun, change.colour) and all(sight.has(change.noun) for sight in sights)
    return np.array([[float(sight.has(change.noun, change.colour)) if seen else NONE] for sight in sights[1:]])


# how pairs are drawn, how their images are judged, names of the figures
KINDS: tuple[tuple[Callable[..., Change], Callable[..., np.ndarray], tuple[str, ...]], ...] = (
    (
        company,
        looks,
        (
            "all things of the target are there",
            "distance of the animal's mean colour to the source's, 0 to 1",
            "distance of the background's mean colour to the source's, 0 to 1",
        ),
    ),
    (unsaid, colour, ("a colour that only the source says is kept",)),
)


def measure(
    model: Model,
    *,
    count: int,
    steps: int,
    guidance: int | float,
    seed: int,
    progress: Callable[[], Any] | None = None,
    **options: Any,
) -> list[Measured]:
    """A second thing joins the source's, from the same noise: no control, MasaCtrl, and Prompt-to-Prompt, with default
    parameters; `options`: those of MasaCtrl."""
    figures: list[Measured] = []
    controls = [MasaCtrl(targets=(2,), **options), Refine(targets=(3,))]
    for draw, judge, names in KINDS:
        rng = random.Random(f"masactrl {seed}")
        changes = [draw(rng) for _ in range(count)]
        jobs = [
            Job(
                [change.source, *[change.target] * 3],
                noise_for(model, seed + number),
                steps,
                guidance,
                controls=controls,
            )
            for number, change in enumerate(changes)
        ]
        found: list[np.ndarray] = []
        for first in range(0, count, BATCH):
            made = sample_jobs(model, jobs[first : first + BATCH])
            for change, one in zip(changes[first : first + BATCH], made, strict=True):
                found.append(judge(change, one.pictures[:, 0]))
                if progress:
                    progress()
        figures += means("MasaCtrl", names, found)
    return figures

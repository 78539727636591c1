"""MasaCtrl: is what was asked for there, and does the thing that was there keep its looks?"""

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

BATCH = 8  # runs made at once, four pictures each
NONE = float("nan")


@dataclass(frozen=True)
class Change:
    """A thing of the source gets company: its noun, the colour that only the source says, all nouns of the target."""

    source: str
    target: str
    noun: str
    colour: str | None
    nouns: tuple[str, ...]

    @classmethod
    def of(cls, scene: Scene, index: int, target: Scene) -> Change:
        """From one thing of a scene, alone, to the target."""
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
    """A coloured thing gets company, and the target says no colours."""
    while True:
        scene = random_scene(rng, relation=rng.choice(RELATIONS[1:]))
        places = [place for place, thing in enumerate(scene.things) if thing.colour]
        if places and scene.style != "sketch":
            return Change.of(scene, places[0], scene.with_(0, colour=None).with_(1, colour=None))


def colour_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Of the mean colours of two sets of pixels, uint8 [pixels, 3], 0 to 1; NaN if one is empty."""
    if not len(first) or not len(second):
        return NONE
    return float(np.sqrt(np.mean((first.mean(0) / 255 - second.mean(0) / 255) ** 2)))


def looks(change: Change, pictures: np.ndarray) -> np.ndarray:
    """Of pictures [source, edits ...], for each edit: whether all things are there, and how far the mean colours of the
    thing and of the background are from the source's; those where the thing is in all pictures, so that the figures
    of all edits are means over the same pairs."""
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
    """Of each edit: whether the thing has the source's colour; where the source has it and the thing is in all."""
    sights = oracle().look(pictures)
    seen = sights[0].has(change.noun, change.colour) and all(sight.has(change.noun) for sight in sights)
    return np.array([[float(sight.has(change.noun, change.colour)) if seen else NONE] for sight in sights[1:]])


# how pairs are drawn, how their pictures are judged, and the names of the figures
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
    """A thing gets company from the same noise, without control, with MasaCtrl and with Prompt-to-Prompt as they come;
    `options` are those of MasaCtrl."""
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

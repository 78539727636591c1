"""Structured Diffusion: does each of two things get its own colour?"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from promptweave.benchmarks.bench_methods import Measured
from promptweave.benchmarks.judging import oracle
from promptweave.benchmarks.score import colours_seen
from promptweave.methods import StructuredDiffusion
from promptweave.models.base import Model
from promptweave.sampling.loop import Job, noise_for, sample_jobs
from promptweave.world.caption import article, caption
from promptweave.world.oracle import Sight
from promptweave.world.scene import Scene, two_colours

BATCH = 8  # runs per batch, three images each
VARIANTS = ("values", "keys")
FIGURES = ("both things there, each in its colour", "things that are there, in their colour", "in the other's colour")


def judge(scenes: list[Scene], sights: list[Sight]) -> tuple[float, float, float]:
    """The figures, in order."""
    right = [colours_seen(scene, sight) for scene, sight in zip(scenes, sights, strict=True)]
    pairs = [
        (sight.colours.get(thing.noun), thing.colour, other.colour)
        for scene, sight in zip(scenes, sights, strict=True)
        for thing, other in (scene.things, scene.things[::-1])
        if sight.has(thing.noun)
    ]
    own, leaked = ([pair[0] == pair[place] for pair in pairs] for place in (1, 2))
    return float(np.mean(right)), float(np.mean(own or [0])), float(np.mean(leaked or [0]))


def measure(
    model: Model, *, count: int, steps: int, guidance: int | float, seed: int, progress: Callable[[], Any] | None = None
) -> list[Measured]:
    """Colours in images of two things, plain and with both variants."""
    rng = random.Random(f"compose {seed}")
    scenes = [two_colours(rng).with_(style="photo") for _ in range(count)]
    jobs: list[Job] = []
    for number, scene in enumerate(scenes):
        phrases = tuple(article(thing.words) for thing in scene.things)
        controls = [StructuredDiffusion(phrases, variant, (row,)) for row, variant in enumerate(VARIANTS, 1)]
        jobs.append(Job([caption(scene)] * 3, noise_for(model, seed + number), steps, guidance, controls=controls))
    rows: list[list[Sight]] = [[], [], []]
    for first in range(0, count, BATCH):
        made = sample_jobs(model, jobs[first : first + BATCH])
        for row, sights in enumerate(rows):
            sights += oracle().look(np.stack([one.pictures[row, 0] for one in made]))
        for _ in range(2 * len(made)):
            if progress:
                progress()
    plain, *steered = (judge(scenes, sights) for sights in rows)
    return [
        Measured(f"Structured Diffusion, {variant}", what, before, after, count)
        for variant, figures in zip(VARIANTS, steered, strict=True)
        for what, before, after in zip(FIGURES, plain, figures, strict=True)
    ]

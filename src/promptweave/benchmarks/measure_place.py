"""Directed Diffusion: is the thing where it was placed?"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from promptweave.benchmarks.bench_methods import Measured
from promptweave.benchmarks.judging import oracle
from promptweave.benchmarks.score import draw
from promptweave.evaluate.metrics import iou
from promptweave.methods import DirectedDiffusion
from promptweave.models.base import Model
from promptweave.sampling.loop import Job, noise_for, sample_jobs
from promptweave.view.boxes import QUADRANTS, Box
from promptweave.world.caption import caption
from promptweave.world.oracle import Sight

BATCH = 10  # runs per batch, two images each
STRAY = 0.02  # fraction of a thing's pixels cut off at either end of each axis, to ignore the oracle's specks


def box_of(region: np.ndarray) -> np.ndarray:
    """The bounding box of a region [height, width], as a region; empty if the region is."""
    found = np.zeros_like(region)
    if region.any():
        top, bottom, left, right = (
            int(np.quantile(places, share)) for places in np.nonzero(region) for share in (STRAY, 1 - STRAY)
        )
        found[top : bottom + 1, left : right + 1] = True
    return found


def marked(box: Box, shape: tuple[int, int]) -> np.ndarray:
    """A box in fractions of the image, as a region."""
    left, top, right, bottom = (
        round(value * side) for value, side in zip(box, (*shape[::-1], *shape[::-1]), strict=True)
    )
    found = np.zeros(shape, dtype=bool)
    found[top:bottom, left:right] = True
    return found


def judge(sight: Sight, noun: str, box: Box) -> tuple[float, float, float]:
    """Whether the thing is there, whether its centre is in the requested box, and the IoU of the boxes."""
    region = box_of(sight.regions[noun])
    if not sight.has(noun) or not region.any():
        return 0.0, 0.0, 0.0
    asked = marked(box, (region.shape[0], region.shape[1]))
    middle = tuple(int(places.mean()) for places in np.nonzero(region))
    return 1.0, float(asked[middle]), iou(region, asked)


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
    """Single things placed in the four quadrants in turn, plain and with the control; `options`: the control's."""
    rng = random.Random(f"place {seed}")
    scenes = [replace(draw("one", rng), style="photo") for _ in range(count)]
    boxes = [list(QUADRANTS.values())[number % len(QUADRANTS)] for number in range(count)]
    jobs = [
        Job([caption(scene)] * 2, noise_for(model, seed + number), steps, guidance, seed=seed + number,
            controls=[DirectedDiffusion(((scene.things[0].words, box),), prompts=(1,), **options)])
        for number, (scene, box) in enumerate(zip(scenes, boxes, strict=True))
    ]  # fmt: skip
    judged: dict[int, list[tuple[float, float, float]]] = {0: [], 1: []}
    for first in range(0, count, BATCH):
        made = sample_jobs(model, jobs[first : first + BATCH])
        for row, found in judged.items():
            sights = oracle().look(np.stack([one.pictures[row, 0] for one in made]))
            for number, sight in enumerate(sights, first):
                found.append(judge(sight, scenes[number].things[0].noun, boxes[number]))
                if progress:
                    progress()
    plain, steered = (np.mean(judged[row], axis=0) for row in judged)
    names = ("the thing is there", "the middle of its box is in the asked quadrant", "IoU of its box and the quadrant")
    return [
        Measured("Directed Diffusion", what, float(before), float(after), count)
        for what, before, after in zip(names, plain, steered, strict=True)
    ]

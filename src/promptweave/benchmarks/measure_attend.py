"""Attend-and-Excite: are both subjects of a prompt in the image?"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from promptweave.benchmarks.bench_methods import Measured
from promptweave.benchmarks.judging import oracle, share
from promptweave.benchmarks.score import draw, things_seen
from promptweave.methods import AttendAndExcite
from promptweave.models.base import Model
from promptweave.sampling.loop import noise_for, sample
from promptweave.world.caption import caption


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
    """Fraction of images with both things, plain and with the control; `options`: those of the control."""
    rng = random.Random(f"attend {seed}")
    scenes = [draw("two", rng) for _ in range(count)]
    made: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for number, scene in enumerate(scenes):
        prompt, noise = caption(scene), noise_for(model, seed + number)
        excite = AttendAndExcite(tuple(f"{thing.noun}#1" for thing in scene.things), **options)
        for steered in made:
            controls = [excite] if steered else []
            made[steered].append(
                sample(model, [prompt], noise=noise, steps=steps, guidance=guidance, controls=controls).pictures[0, 0]
            )
            if progress:
                progress()
    seen = {
        steered: share([things_seen(s, sight) for s, sight in zip(scenes, oracle().look(np.stack(p)), strict=True)])
        for steered, p in made.items()
    }
    return [Measured("Attend-and-Excite", "both things are there", seen[False], seen[True], count)]

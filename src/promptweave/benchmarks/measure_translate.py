"""pix2pix-zero: does one thing become another, and does the rest stay?"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from promptweave.benchmarks.bench_edits import beyond
from promptweave.benchmarks.bench_methods import Measured, means
from promptweave.benchmarks.judging import oracle
from promptweave.benchmarks.swept import injection
from promptweave.evaluate.metrics import psnr
from promptweave.methods import Pix2PixZero
from promptweave.models.base import Model
from promptweave.sampling.loop import Job, noise_for, sample_jobs
from promptweave.world.counterfactuals import Counterfactual, drawn

BATCH = 8  # pairs per batch, seven images each
VARIANTS: dict[str, dict[str, Any]] = {"pix2pix-zero": {}, "pix2pix-zero, strength 2": {"strength": 2}}
FIGURES = ("the new thing is there, the old one gone", "PSNR outside both things, dB")


def jobs_of(model: Model, pair: Counterfactual, seed: int, steps: int, guidance: int | float) -> list[Job]:
    """The runs of one pair: [source, no control, Prompt-to-Prompt], and separately [source, pix2pix-zero] for each
    variant, since a gradient step on latents costs a pass of all rows."""
    noise, (old, new) = noise_for(model, seed), pair.nouns
    prompts, controls = [pair.source, pair.target, pair.target], [injection(model, pair)(targets=(2,))]
    return [
        Job(prompts, noise, steps, guidance, controls=controls),
        *(
            Job([pair.source] * 2, noise, steps, guidance, controls=[Pix2PixZero(old, new, **options)])
            for options in VARIANTS.values()
        ),
    ]


def judge(pair: Counterfactual, pictures: np.ndarray) -> np.ndarray:
    """For images [source, edits ...]: success and PSNR of each edit, [edits, 2]; NaN if nothing lies outside."""
    sights = oracle().look(pictures)
    return np.array(
        [
            (pair.success(sight), psnr(pictures[0], made, beyond(pair.nouns, sights[0], sight)))
            for sight, made in zip(sights[1:], pictures[1:], strict=True)
        ]
    )


def measure(
    model: Model, *, count: int, steps: int, guidance: int | float, seed: int, progress: Callable[[], Any] | None = None
) -> list[Measured]:
    """Swaps of one thing for another from the same noise: no control, the variants, and Prompt-to-Prompt with default
    parameters."""
    rng = random.Random(f"translate {seed}")
    pairs = [drawn("object swap", rng, number, "test") for number in range(count)]
    found: dict[str, list[np.ndarray]] = {name: [] for name in VARIANTS}
    for first in range(0, count, BATCH):
        batch = pairs[first : first + BATCH]
        jobs = [
            job
            for number, pair in enumerate(batch, first)
            for job in jobs_of(model, pair, seed + number, steps, guidance)
        ]
        made = [one.pictures[:, 0] for one in sample_jobs(model, jobs)]
        each = len(jobs) // len(batch)
        for place, pair in enumerate(batch):
            swapped, *translated = made[place * each : (place + 1) * each]
            for rows, pictures in zip(found.values(), translated, strict=True):
                rows.append(judge(pair, np.stack([*swapped[:2], pictures[1], swapped[2]])))
            for _ in range(2):
                if progress:
                    progress()
    return [figure for name, rows in found.items() for figure in means(name, FIGURES, rows)]

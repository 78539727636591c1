"""The packaged oracle, and batches of images to judge, for scoring and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from promptweave.models.base import Model
from promptweave.sampling.loop import noise_for, sample
from promptweave.world.oracle import ORACLE, Oracle


def oracle_path() -> Path:
    """Path of the oracle's weights in the installed package."""
    return Path(str(resources.files("promptweave.world").joinpath(ORACLE)))


@lru_cache(maxsize=1)
def oracle() -> Oracle:
    """The oracle. Raises FileNotFoundError if it was not trained."""
    if not oracle_path().is_file():
        raise FileNotFoundError("The oracle's weights are missing. Train them with: promptweave train --stage oracle")
    return Oracle.load(oracle_path())


def pictures(
    model: Model, prompts: Sequence[str], seed: int, steps: int, guidance: int | float, batch: int = 20
) -> np.ndarray:
    """One image per prompt, uint8 [prompts, h, w, 3]; each batch of prompts has its own starting noise."""
    made = [
        sample(
            model, prompts[i : i + batch], noise=noise_for(model, seed + i), steps=steps, guidance=guidance
        ).pictures[:, 0]
        for i in range(0, len(prompts), batch)
    ]
    return np.concatenate(made)


def share(values: Sequence[bool]) -> float:
    """The fraction that is true."""
    return sum(values) / max(1, len(values))

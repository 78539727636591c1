"""What the stages of training share: the recipe, the clock and the log.

Every stage is seeded, writes checkpoints and resumes from them, and adds a line a minute to `log.jsonl`. The learning
rate follows the clock: constant, then linearly to zero over the last part of the requested minutes, so that training of
any length ends in a finished model.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from promptweave.core.files import CannotWrite, check_folder, write_file
from promptweave.world.render import render
from promptweave.world.scene import Scene


@dataclass(frozen=True)
class Training:
    """The parameters of a training run, except for its duration."""

    seed: int = 0
    scenes: int = 30_000
    coloured_scenes: int = 6_000  # more scenes with two things of two colours, which are rare among the others
    workers: int = 1  # processes that render the images of the stages vae and decoder
    vae_batch: int = 12
    vae_rate: int | float = 0.02
    batch: int = 24
    rate: int | float = 1.0e-3
    warm_up: int = 200
    bf16: bool = False  # all stages but the oracle and fast compute in bfloat16, weights stay in float32
    decay_share: int | float = 0.2
    grid_steps: int = 12
    save_seconds: int | float = 600
    joint_batch: int = 32
    joint_rate: int | float = 1.0e-3
    coarse_share: int | float = 0.6
    fast_batch: int = 8
    fast_rate: int | float = 1.0e-3
    fast_decay_share: int | float = 0.5


def pixels(scenes: list[Scene]) -> Tensor:
    """The images of the scenes, float [scenes, 3, side, side] in [-1, 1]."""
    pictures = np.stack([render(scene)[0] for scene in scenes])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(make: Callable[[Item], Made], items: Iterable[Item], most: int = 16, workers: int = 1) -> Iterator[Made]:
    """`make` of each item, in order, computed by other processes that are at most `most` items ahead."""
    with ProcessPoolExecutor(workers) as pool:
        waiting: deque[Future[Made]] = deque()
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Diverged(ValueError):
    """Training that cannot go on: its loss or a gradient is not finite."""


def diverged(what: str) -> Diverged:
    """The error for what is not finite."""
    return Diverged(
        f"Training has diverged: {what}. The last checkpoint is kept, and training goes on from it. Lower the "
        "learning rate (--rate), or train in single precision (without --bf16)."
    )


def clip(network: nn.Module) -> None:
    """Clip the norm of the gradient to one. Raises Diverged, before any weight has moved, if it is not finite."""
    norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    if not norm.isfinite():
        raise diverged(f"the norm of the gradient is {float(norm)}")


@contextmanager
def precision_of(recipe: Training, device: str) -> Iterator[None]:
    """The precision of a forward pass: bfloat16 if the recipe asks for it, with attention written out on a GPU.

    There the backward pass of the fused kernels gave NaN after 14 steps (H200, torch 2.11, the UNet's attention at
    16 x 16, cross-attention to 77 tokens), at any rate of learning; written out it trains, as does single precision.
    """
    kind = torch.device(device).type
    written_out = sdpa_kernel(SDPBackend.MATH) if recipe.bf16 and kind == "cuda" else nullcontext()
    with torch.autocast(kind, torch.bfloat16, enabled=recipe.bf16), written_out:
        yield


Watch = Callable[[Mapping[str, Any]], None]


class Log:
    """A log of JSON lines in `log.jsonl`, one every `every` seconds; `watch` is called after every step."""

    def __init__(self, folder: Path, watch: Watch | None = None, every: int | float = 60) -> None:
        check_folder(folder, "Choose another with --folder.")
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.watch, self.every, self.last = folder / "log.jsonl", watch, every, 0.0

    def __call__(self, *, force: bool = False, **values: Any) -> None:
        """Raises Diverged for a loss that is not finite."""
        if not math.isfinite(values.get("loss", 0.0)):
            raise diverged(f"the loss of stage {values['stage']} is {values['loss']} after {values['samples']} samples")
        if self.watch:
            self.watch(values)
        if force or time.time() - self.last >= self.every:
            self.last = time.time()
            line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()})
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                raise CannotWrite(
                    f"{self.path} cannot be written to ({error.strerror}). The last checkpoint is kept; make room and "
                    "train again to resume from it."
                ) from error


def save_checkpoint(path: Path, values: Any) -> None:
    """Write a checkpoint, whole or not at all: the one before it stays until then. Raises CannotWrite."""
    write_file(path, lambda fresh: torch.save(values, fresh))


def checkpoint(path: Path, **fresh: Any) -> dict[str, Any]:
    """The checkpoint at `path`, loaded on the CPU, or `fresh` if there is none yet."""
    if fresh and not path.exists():
        return fresh
    return torch.load(path, map_location="cpu")


def rate_at(progress: int | float, decay_share: int | float) -> float:
    """Factor on the learning rate: one, then linearly to zero over the last `decay_share` of the run."""
    return min(1.0, max(0.0, (1 - progress) / decay_share))


class Clock:
    """The clock of a stage: minutes spent in all its runs."""

    def __init__(self, minutes: int | float, spent: int | float = 0.0) -> None:
        self.minutes, self.spent, self.started = minutes, spent, time.time()

    @property
    def used(self) -> float:
        return self.spent + (time.time() - self.started) / 60

    @property
    def progress(self) -> float:
        return self.used / max(self.minutes, 1e-9)

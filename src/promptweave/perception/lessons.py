"""How a perceiver is trained, and which examples each step takes: functions of the seed and the step alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from torch import Tensor

from promptweave.core.fields import Option

WARM_FROM = 1e-3  # factor on the rate at the first step


@dataclass(frozen=True)
class Lessons:
    """How a perceiver is trained."""

    steps: Annotated[int, Option("Steps of the head alone, on features that are computed once.", low=0)] = 2000
    through: Annotated[
        int, Option("Steps before that in which the text adapter learns, too, through the network.", low=0)
    ] = 0
    batch: Annotated[int, Option("Batch size of the head's steps.", low=1)] = 16
    batch_through: Annotated[int, Option("Batch size of the steps through the network.", low=1)] = 16
    rate: Annotated[float, Option("Maximum learning rate.", low=0)] = 2e-3
    decay: Annotated[float, Option("Weight decay of AdamW.", low=0)] = 1e-2
    power: Annotated[float, Option("Power of the learning rate's decay.", low=0)] = 0.9
    warm_up: Annotated[int, Option("Steps of linear warm-up.", low=0)] = 50
    fine_tune: Annotated[
        float, Option("Fine-tune the network at this multiple of the learning rate; 0: keep it frozen.", low=0)
    ] = 0.0
    every: Annotated[
        int,
        Option("In the head's steps, the loss reads one random pixel of each square of this side.", low=1),
    ] = 2
    checkpointing: Annotated[bool, Option("Gradient checkpointing: less memory, a third more time.")] = False
    bf16: Annotated[bool, Option("Compute in bfloat16; weights stay in single precision.")] = False
    smallest: Annotated[float, Option("Smallest random scale before a random crop.", low=0.01)] = 1.0
    largest: Annotated[float, Option("Largest random scale before a random crop.", low=0.01)] = 1.0
    seed: Annotated[int, Option("Seed of weights, order and augmentation.", low=0)] = 0

    @property
    def total(self) -> int:
        """Steps of both parts."""
        return self.through + self.steps

    def factor(self, step: int) -> float:
        """Factor on the learning rate at a step."""
        rise = 1.0 if step >= self.warm_up else WARM_FROM + (1 - WARM_FROM) * step / self.warm_up
        return rise * (1 - step / self.total) ** self.power

    def check(self) -> None:
        """Raise ValueError for lessons that contradict each other."""
        if not self.total:
            raise ValueError("Training needs at least one step. Received steps=0 and through=0.")
        if self.fine_tune and not self.through:
            raise ValueError(
                "The network is fine-tuned in the steps through it. Received fine_tune without through. "
                "Give --through, too."
            )
        if self.checkpointing and not self.through:
            raise ValueError("Gradient checkpointing acts in the steps through the network. Give --through, too.")
        if self.smallest > self.largest:
            raise ValueError(f"The smallest scale is at most the largest. Received {self.smallest}, {self.largest}.")
        if (self.smallest, self.largest) != (1.0, 1.0) and self.steps:
            raise ValueError(
                "Random scales need every step to pass through the network, and features that are computed once "
                "cannot have them. Set --steps 0 and give --through."
            )


def indices(lessons: Lessons, step: int, batch: int, count: int) -> list[int]:
    """Which of `count` examples are in the batch of a step: each epoch has an order of its own."""
    places = range(step * batch, (step + 1) * batch)
    orders = {e: np.random.default_rng([lessons.seed, e]).permutation(count) for e in {p // count for p in places}}
    return [int(orders[place // count][place % count]) for place in places]


def thinned(targets: Tensor, every: int, step: int) -> Tensor:
    """One of `every` pixels of answers in both directions, at an offset drawn for the step."""
    rng = random.Random(step)
    return targets[:, rng.randrange(every) :: every, rng.randrange(every) :: every]

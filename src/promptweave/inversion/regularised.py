"""Regularised DDIM inversion (pix2pix-zero, Parmar et al. 2023, arXiv 2302.03027, section 3.2 and appendix).

An inverted latent is easier to edit under guidance if it looks like noise. So in each step the predicted noise e is
moved several times down the gradients of two losses. They penalise correlated neighbours (the auto-correlation, over a
pyramid of resolutions) and a mean and variance other than those of the normal distribution,

    L_pair = sum over channels, levels of mean(e shift_x(e))^2 + mean(e shift_y(e))^2,    with new random shifts,
    L_kl = var(e) + mean(e)^2 - 1 - log var(e).

Differs from the authors' code: theirs inverts on 48 of 50 levels, some 20 training times off those on which it samples;
here the levels are the sampler's own. Each image of a batch is corrected by itself, independently of the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Number, Step
from promptweave.core.control import Control
from promptweave.core.fields import Option
from promptweave.inversion.ddim import ddim_path
from promptweave.inversion.inverting import Inversion, Inverted, Task

TINY = 1e-7
COARSEST = 8  # the pyramid ends with a level whose shorter side has at most so many cells


@dataclass(frozen=True)
class Regularised(Inversion):
    """DDIM inversion whose noise is moved towards Gaussian noise, and the source kept on its path.

    `pair` and `kl`: weights of the losses; `rounds`: how often both act in a step; `draws`: random shifts per round;
    `seed`: of the shifts; None: the run's. Called with a step's noise, it corrects it. Raises ValueError for numbers
    out of range.
    """

    name: ClassVar[str] = "regularised"
    about: ClassVar[str] = "As direct, with noise that each step makes more like Gaussian noise (pix2pix-zero)."
    pair: Annotated[Number, Option("Weight of the loss on neighbours' correlation.", low=0)] = 20.0
    kl: Annotated[Number, Option("Weight of the loss on mean and variance.", low=0)] = 20.0
    rounds: Annotated[int, Option("How often both losses act in a step.", low=0)] = 5
    draws: Annotated[int, Option("Random shifts in each round.", low=1)] = 5
    seed: Annotated[int | None, Option("Seed of the shifts. [the run's]", low=0)] = None

    def __post_init__(self) -> None:
        if self.pair < 0 or self.kl < 0 or self.rounds < 0 or self.draws < 1:
            raise ValueError(
                "Regularised takes weights and rounds of at least 0, and draws of at least 1. Received "
                f"pair={self.pair}, kl={self.kl}, rounds={self.rounds}, draws={self.draws}."
            )

    def find(self, task: Task) -> Inverted:
        correct = self if self.seed is not None else replace(self, seed=task.seed)
        return Inverted(ddim_path(task, correct=correct), self)

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        return (found.pin,)

    def __call__(self, noise: Float[Tensor, "images *shape"], step: Step) -> Float[Tensor, "images *shape"]:
        """The corrected noise of a step. The shifts depend on the step's index."""
        parts: list[Tensor] = []
        for one in noise.split(1):
            rng, e = random.Random(f"{self.seed or 0} {step.index}"), one
            for _ in range(self.rounds):
                for _ in range(self.draws if self.pair else 0):
                    e = _moved(e, partial(auto_correlation, rng=rng), self.pair / self.draws)
                if self.kl:
                    e = _moved(e, divergence, self.kl)
            parts.append(e)
        return torch.cat(parts)


def auto_correlation(e: Float[Tensor, "1 channels height width"], rng: random.Random) -> Float[Tensor, ""]:
    """L_pair of one image's noise."""
    total = torch.zeros((), dtype=e.dtype, device=e.device)
    while True:
        side = min(e.shape[-2:])
        shift = rng.randrange(1, max(2, side // 2))
        for axis in (-2, -1):
            total = total + ((e * e.roll(shift, axis)).mean((-2, -1)) ** 2).sum()
        if side <= COARSEST:
            return total
        e = F.avg_pool2d(e, 2)


def divergence(e: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """L_kl of all values together."""
    variance = e.var()
    return variance + e.mean() ** 2 - 1 - torch.log(variance + TINY)


def _moved(e: Tensor, loss: Callable[[Tensor], Tensor], weight: int | float) -> Tensor:
    with torch.enable_grad():
        e = e.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(e), e)
    return (e - weight * gradient).detach()

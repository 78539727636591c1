"""Regularised DDIM inversion (pix2pix-zero, Parmar et al. 2023, arXiv 2302.03027, section 3.2 and appendix).

A path to noise is easier to walk under guidance if what it ends in looks like noise. In each step the predicted noise e
is moved, several times, along the gradients of two losses: neighbours that agree (the auto-correlation, over a pyramid
of resolutions) and a spread or a mean that is not the normal distribution's,

    L_pair = sum over channels, levels of mean(e shift_x(e))^2 + mean(e shift_y(e))^2,    shifts drawn anew each time,
    L_kl = var(e) + mean(e)^2 - 1 - log var(e).

Differs from the authors' code: it takes 48 of 50 levels, some 20 training times beside those on which it samples; here
the way back is the sampler's own. Each picture of a batch is corrected alone, the same as without the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step

TINY = 1e-7
COARSEST = 8  # the pyramid ends with a level of at most so many cells


@dataclass(frozen=True)
class Regularised:
    """A correction for `invert`: `pair` and `kl` are the losses' weights (20 and 20), `rounds` how often both are
    taken (5), `draws` the shifts of each round (5), `seed` that of the shifts."""

    pair: int | float = 20.0
    kl: int | float = 20.0
    rounds: int = 5
    draws: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pair < 0 or self.kl < 0 or self.rounds < 0 or self.draws < 1:
            raise ValueError(
                "Weights and rounds of Regularised are at least 0, draws at least 1. Received "
                f"pair={self.pair}, kl={self.kl}, rounds={self.rounds}, draws={self.draws}."
            )

    def __call__(self, noise: Float[Tensor, "images *shape"], step: Step) -> Float[Tensor, "images *shape"]:
        """The corrected noise of a step, on whose number the shifts depend."""
        parts: list[Tensor] = []
        for one in noise.split(1):
            rng, e = random.Random(f"{self.seed} {step.index}"), one
            for _ in range(self.rounds):
                for _ in range(self.draws if self.pair else 0):
                    e = _moved(e, partial(auto_correlation, rng=rng), self.pair / self.draws)
                if self.kl:
                    e = _moved(e, divergence, self.kl)
            parts.append(e)
        return torch.cat(parts)


def auto_correlation(e: Float[Tensor, "1 channels height width"], rng: random.Random) -> Float[Tensor, ""]:
    """L_pair of one picture's noise."""
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

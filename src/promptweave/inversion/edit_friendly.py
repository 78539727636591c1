"""Edit-friendly inversion of the stochastic sampler (Huberman-Spiegelglas et al. 2024, arXiv 2304.06140).

Instead of one starting noise, the noise that DDPM adds in each step is found (section 3.2, algorithm 1). Each noise
level gets the image with noise of its own, independent of the other levels, and the noise maps are what takes the
sampler from one to the next:

    x_t = sqrt(a_t) x0 + sqrt(1 - a_t) n_t,    n_t ~ N(0, I) for each t,
    mu(x_t) = sqrt(a_s) x0(e) + sqrt(1 - a_s - v) e,    v = eta^2 (1 - a_s) / (1 - a_t) (1 - a_t / a_s),
    noise(t) = x_s - mu(x_t),

where s is the step's less noisy end. The run starts after the fraction `skip` of the steps, at x_t, and adds the same
noise in every row; the source is predicted with `source_guidance`, so it is the image again.

Differs from the authors' code: eta enters squared (the same at their eta of 1); n_t comes from the run's seed; the
noise of the last step, which they drop, is kept, so that the source is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Number, Step
from promptweave.core.control import Control, Hooks, Run
from promptweave.core.fields import Option
from promptweave.core.schedule import Prediction, Schedule
from promptweave.inversion.inverting import Inverted, Latent, Task
from promptweave.inversion.left_out import Skipping, check_begin
from promptweave.inversion.of_source import OfSource
from promptweave.models.base import Model, Solver
from promptweave.sampling.solver import Ddim
from promptweave.sampling.steps import clean_and_noise, roots


@dataclass(frozen=True)
class EditFriendly(Skipping):
    """The noise maps of a stochastic sampler that lead to the image (edit-friendly DDPM inversion)."""

    name: ClassVar[str] = "edit-friendly"
    about: ClassVar[str] = "The noise that the stochastic sampler adds in each step is found."
    tensors: ClassVar[Mapping[str, int]] = {"noises": 5}
    skip: Annotated[Number, Option("Fraction of the steps that are left out.", low=0, high=1)] = 0.24
    eta: Annotated[Number, Option("Fraction of the full noise of DDPM.", low=0, high=1)] = 1.0
    source_guidance: Annotated[Number, Option("Guidance scale of the source.", low=0)] = 1.0

    @torch.no_grad()
    def find(self, task: Task) -> Inverted:
        schedule, steps = task.schedule(), task.steps_of_run
        begin = self.begin(len(steps))
        clean, generator = task.latents, torch.Generator().manual_seed(task.seed)
        noisy: list[Latent] = []
        for step in steps:
            signal, spread = roots(schedule.level(step.t), clean)
            draw = torch.randn(clean.shape, generator=generator, dtype=torch.float32)
            noisy.append(signal * clean + spread * draw.to(clean))
        path, noises = [*noisy, clean], [torch.zeros_like(clean)] * begin
        for step in steps[begin:]:
            z = path[step.index]
            output = task.predict(z, step, self.source_guidance)
            levels = schedule.level(step.t), schedule.level(step.t_next)
            mean = posterior_mean(output, z, *levels, self.eta, schedule.prediction)
            noises.append(path[step.index + 1] - mean)
            task.tell(step, z)
        path[: begin + 1] = [path[begin]] * (begin + 1)
        return Inverted(tuple(path), self, {"noises": torch.stack(noises)}, {"skipped steps": begin})

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        return (SourceGuidance(self.source_guidance, self.begin(len(found.path) - 1)),)

    def solver(self, found: Inverted, model: Model, prompts: int) -> Solver:
        return Ddpm(model.schedule(), len(found.path) - 1, found.more["noises"], self.eta)


def posterior_mean(output: Latent, z: Latent, a: float, b: float, eta: Number, prediction: Prediction) -> Latent:
    """mu(z): the mean of a DDPM step from level a to level b, whose variance is eta^2 of the full one."""
    clean, noise = clean_and_noise(output, z, a, prediction)
    variance = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
    signal, _ = roots(b, z)
    return signal * clean + max(1 - b - variance, 0.0) ** 0.5 * noise


class Ddpm(Ddim):
    """DDPM with given noise: `noises` [steps, images, channels, height, width] are added, the same in every row."""

    def __init__(
        self,
        schedule: Schedule,
        steps: int | Sequence[Step],
        noises: Float[Tensor, "steps images channels height width"],
        eta: Number,
    ) -> None:
        super().__init__(schedule, steps)
        self.noises, self.eta = noises, eta

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """One step of DDPM."""
        step, schedule = self._at[t], self.schedule
        levels = schedule.level(step.t), schedule.level(step.t_next)
        mean = posterior_mean(output, z, *levels, self.eta, schedule.prediction)
        noise = self.noises[step.index].to(z)
        return mean + noise.repeat(len(z) // len(noise), 1, 1, 1)


@dataclass(frozen=True, eq=False)
class SourceGuidance(OfSource):
    """The guidance of row 0, and the first step of the run."""

    guidance: Number
    begin: int

    def bind(self, run: Run) -> Hooks:
        check_begin(self.begin, run)
        return _Guided(self)


class _Guided(Hooks):
    def __init__(self, control: SourceGuidance) -> None:
        self.guidance, self.first_step = control.guidance, control.begin

    def strength(self, step: Step, guidance: Tensor) -> Tensor:
        return torch.cat([torch.full_like(guidance[:1], self.guidance), guidance[1:]])

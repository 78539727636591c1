"""ReNoise (Garibi et al. 2024, arXiv 2403.14602): inversion by a fixed point in each step.

DDIM inversion evaluates the network at z_s, the less noisy end of a step, where z_t is wanted. ReNoise repeats it: with
y_0 = z_s,

    e_k = network(y_k, t),    y_(k + 1) = the latent at t from which e_k leads to z_s,

and takes the average of e_k over the last rounds (section 4.1), so that sampling forward comes back. In the steps below
the training time `early` there are half as many, and all are averaged. `pair` and `kl` move each noise towards Gaussian
noise, as in pix2pix-zero.

Differs from the authors' code: the losses are those of pix2pix-zero's regularisation (`Regularised`) instead of
statistics of patches. Their noise correction is for stochastic samplers, which are not inverted here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from promptweave.core.clock import Number, Step
from promptweave.core.control import Control
from promptweave.core.fields import Option
from promptweave.inversion.inverting import CannotInvert, Inversion, Inverted, Latent, Task
from promptweave.inversion.regularised import Regularised
from promptweave.sampling.loop import FLOW
from promptweave.sampling.steps import clean_and_noise, ddim_step


@dataclass(frozen=True)
class ReNoise(Inversion):
    """Inversion that repeats each step until the network is evaluated where the step begins (ReNoise)."""

    name: ClassVar[str] = "renoise"
    about: ClassVar[str] = "Each step of the inversion is repeated, so that sampling leads back to the image."
    flow: ClassVar[bool] = True
    rounds: Annotated[int, Option("How often each step is repeated.", low=0)] = 9
    average: Annotated[int, Option("How many of the last predictions are averaged.", low=1)] = 2
    early: Annotated[int, Option("Training time below which a step has half the rounds, all averaged.", low=0)] = 250
    pair: Annotated[Number, Option("Weight of the loss on neighbours' correlation.", low=0)] = 0.0
    kl: Annotated[Number, Option("Weight of the loss on mean and variance.", low=0)] = 0.0
    pin: Annotated[bool, Option("Also keep the source on the path of its inversion.")] = False

    @torch.no_grad()
    def find(self, task: Task) -> Inverted:
        if self.average > self.rounds + 1:
            raise CannotInvert(
                f"ReNoise averages at most the {self.rounds + 1} predictions of {self.rounds} rounds. Received "
                f"average={self.average}."
            )
        regularise = Regularised(self.pair, self.kl, seed=task.seed) if self.pair or self.kl else None
        if regularise and task.model.scheduler == FLOW:
            raise CannotInvert("pair and kl are losses of noise, and a flow model predicts velocities. Leave them out.")
        z, path = task.latents, [task.latents]
        for step in reversed(task.steps_of_run):
            few = step.t < self.early
            rounds = max(1, (self.rounds + 1) // 2) if few else self.rounds + 1
            y, found = z, list[Latent]()
            for _ in range(rounds):
                found.append(_noise(task, y, step))
                y = _back(task, found[-1], z, step)
            mean = torch.stack(found if few else found[-self.average :]).mean(0)
            z = _back(task, regularise(mean, step) if regularise else mean, z, step)
            path.append(z)
            task.tell(step, z)
        return Inverted(tuple(reversed(path)), self)

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        return (found.pin,) if self.pin else ()


def _noise(task: Task, y: Latent, step: Step) -> Latent:
    """The noise that the network sees in a latent at the noisier end of a step; for flow models the velocity."""
    output = task.predict(y, step)
    if task.model.scheduler == FLOW:
        return output
    schedule = task.schedule()
    return clean_and_noise(output, y, schedule.level(step.t), schedule.prediction)[1]


def _back(task: Task, noise: Latent, z: Latent, step: Step) -> Latent:
    """The latent from which a step with this noise, or velocity, leads to `z`."""
    if task.model.scheduler == FLOW:
        return z + (step.t - max(step.t_next, 0.0)) / 1000 * noise
    schedule = task.schedule()
    return ddim_step(noise, z, schedule.level(step.t_next), schedule.level(step.t))

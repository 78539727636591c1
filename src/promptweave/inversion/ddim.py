"""DDIM inversion: the deterministic sampler run backwards, from an image to noise.

Song et al. 2021 (arXiv 2010.02502, section 4.3) for diffusion models; for flow models, the Euler step run backwards.
With a(t) the noise level of a step and a(s) that of the step after it, which is less noisy,

    z_t = sqrt(a(t)) x0 + sqrt(1 - a(t)) e,    x0 = (z_s - sqrt(1 - a(s)) e) / sqrt(a(s)),    e = network(z_s, t),

    z_t = z_s + (sigma_t - sigma_s) v,         v = network(z_s, t)    in a flow model.

The network is evaluated at z_s, which is not yet at the level t, so sampling forward again does not reproduce the image
exactly, and guidance increases the error. `Direct` therefore keeps the source of a run on the path found here (Direct
Inversion, Ju et al. 2024, arXiv 2310.01506): its latents are then exactly the image's, and the targets read their maps
from the image's own path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Control
from promptweave.inversion.inverting import CannotInvert, Inversion, Inverted, Latent, Task, in_numbers
from promptweave.models.base import Model
from promptweave.sampling.loop import FLOW
from promptweave.sampling.steps import clean_and_noise, ddim_step
from promptweave.sampling.walk import Progress

Correct = Callable[[Latent, Step], Latent]  # predicted noise to corrected noise


@dataclass(frozen=True)
class Direct(Inversion):
    """DDIM inversion, and the source kept on its path (Direct Inversion)."""

    name: ClassVar[str] = "direct"
    about: ClassVar[str] = "The source is kept on the path of DDIM inversion, and so is exactly the image."
    flow: ClassVar[bool] = True

    def find(self, task: Task) -> Inverted:
        return Inverted(ddim_path(task), self)

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        return (found.pin,)


@dataclass(frozen=True)
class Plain(Inversion):
    """DDIM inversion alone: the source is generated again from the noise."""

    name: ClassVar[str] = "ddim"
    about: ClassVar[str] = "The source is generated again from the noise of DDIM inversion."
    flow: ClassVar[bool] = True

    def find(self, task: Task) -> Inverted:
        return Inverted(ddim_path(task), self)


def invert(
    model: Model,
    latents: Latent,
    prompt: str,
    *,
    steps: int = 50,
    guidance: int | float = 1.0,
    negative: str = "",
    correct: Correct | None = None,
    progress: Progress | None = None,
    truncate: bool = False,
) -> Inverted:
    """The path of an image's latents (`model.to_latent`) back to noise, with one network pass per step.

    `prompt` describes the image. A `guidance` other than 1 makes the inversion less accurate. `correct` may change the
    noise that a diffusion model predicts. `truncate`: as in `sample`. Raises CannotInvert for any solver but DDIM and
    the Euler solver of flow models, and NotFinite if the network gives no numbers.
    """
    task = Task(model, latents, prompt, steps, guidance, negative, progress=progress, truncate=truncate)
    return in_numbers(Inverted(ddim_path(task, guidance, correct), Direct()), model)


@torch.no_grad()
def ddim_path(task: Task, guidance: int | float = 1, correct: Correct | None = None) -> tuple[Latent, ...]:
    """The latents [steps + 1] from noise to the image."""
    z, back = task.latents, way_back(task, correct)
    path = [z]
    for step in reversed(task.steps_of_run):
        z = back(task.predict(z, step, guidance), z, step)
        path.append(z)
        task.tell(step, z)
    return tuple(reversed(path))


def way_back(task: Task, correct: Correct | None = None) -> Callable[[Tensor, Tensor, Step], Tensor]:
    """The function (output, latent at the step's end, step) that takes one step towards the noise."""
    if task.model.scheduler == FLOW:
        if correct is not None:
            raise CannotInvert(
                "A correction changes predicted noise, and a flow model predicts velocities. Invert without one."
            )
        return lambda v, z, step: z + (step.t - max(step.t_next, 0.0)) / 1000 * v
    schedule = task.schedule()

    def ddim(output: Tensor, z: Tensor, step: Step) -> Tensor:
        here, there = schedule.level(step.t_next), schedule.level(step.t)
        _, noise = clean_and_noise(output, z, here, schedule.prediction)
        return ddim_step(noise if correct is None else correct(noise, step), z, here, there)

    return ddim

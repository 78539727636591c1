"""DDIM inversion: the deterministic sampler run backwards, from an image to noise.

Song et al. 2021 (arXiv 2010.02502, section 4.3) for diffusion models; for flow models, the Euler step run backwards.
With a(t) the noise level of a step and a(s) that of the step after it, which is less noisy,

    z_t = sqrt(a(t)) x0 + sqrt(1 - a(t)) e,    x0 = (z_s - sqrt(1 - a(s)) e) / sqrt(a(s)),    e = network(z_s, t),

    z_t = z_s + (sigma_t - sigma_s) v,         v = network(z_s, t)    in a flow model.

The network is evaluated at z_s, which is not yet at the level t, so sampling forward again does not reproduce the image
exactly, and guidance increases the error. `Inverted.pin` therefore keeps the source of a run on the path found here
(Direct Inversion, Ju et al. 2024, arXiv 2310.01506): its latents are then exactly the image's, and the targets read
their maps from the image's own path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.precision import precision
from promptweave.core.rows import Layout
from promptweave.inversion.pinned import Pinned
from promptweave.models.base import Model
from promptweave.sampling.loop import FLOW, Job
from promptweave.sampling.passes import Pass, answer
from promptweave.sampling.steps import clean_and_noise, ddim_step, guide
from promptweave.sampling.walk import Progress, branches

Latent = Float[Tensor, "images channels height width"]
Correct = Callable[[Latent, Step], Latent]  # predicted noise to corrected noise


class CannotInvert(ValueError):
    """Raised for a model whose sampler cannot be inverted."""


@dataclass(frozen=True, eq=False)
class Inverted:
    """`path` [steps + 1]: the latents from noise (0) to the image (last), [images, channels, height, width] each."""

    path: tuple[Latent, ...]

    @property
    def noise(self) -> Latent:
        """The starting noise of a run."""
        return self.path[0]

    @property
    def pin(self) -> Pinned:
        """A control, to be put first: row 0 follows the path."""
        return Pinned(self.path)


@torch.no_grad()
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
    the Euler solver of flow models.
    """
    z = latents.to(model.device, precision(latents.dtype, model.dtype))
    job = Job([prompt], z, steps, guidance, negative=negative, truncate=truncate)
    job.bind(model)
    solver = job.solver(model)
    back = _way_back(model, correct)
    texts = job.texts(model, len(solver.steps))
    layout = Layout(branches(model, guidance), 1, len(z))
    strength = torch.full((1,), float(guidance), device=z.device, dtype=z.dtype)
    path = [z]
    for step in reversed(solver.steps):
        here = Pass(model, step, texts[step.index], strength, (), layout)
        output = answer(model, [here.request(z[None], step.t)])[0].unflatten(0, (len(layout.branches), len(z)))
        guided = guide(output[0], output[1], guidance) if len(output) == 2 else output[0]
        z = back(guided.to(z.dtype), z, step)
        path.append(z)
        if progress:
            progress(step, z[None])
    return Inverted(tuple(reversed(path)))


def _way_back(model: Model, correct: Correct | None) -> Callable[[Tensor, Tensor, Step], Tensor]:
    """The function that takes one step towards the noise."""
    if model.scheduler == FLOW:
        if correct is not None:
            raise CannotInvert(
                "A correction changes predicted noise, and a flow model predicts velocities. Invert without one."
            )
        return lambda v, z, step: z + (step.t - max(step.t_next, 0.0)) / 1000 * v
    if model.scheduler != "ddim":
        raise CannotInvert(
            f"Only DDIM and the Euler solver of flow models can be inverted. Received {model.scheduler!r}. "
            'Load the model with scheduler="ddim" (--scheduler ddim).'
        )
    schedule = model.schedule()
    if schedule.prediction == "sample":
        raise CannotInvert(
            "DDIM inversion needs a prediction of the noise, and this network predicts the image. Choose another model."
        )

    def ddim(output: Tensor, z: Tensor, step: Step) -> Tensor:
        here, there = schedule.level(step.t_next), schedule.level(step.t)
        _, noise = clean_and_noise(output, z, here, schedule.prediction)
        return ddim_step(noise if correct is None else correct(noise, step), z, here, there)

    return ddim

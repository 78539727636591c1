"""DDIM inversion: the deterministic sampler walked backwards, from a picture to noise.

Song et al. 2021 (arXiv 2010.02502, section 4.3) for diffusion models; for flow models the Euler step backwards. With
a(t) the level of a step and a(s) that of the step after it, which is less noisy,

    z_t = sqrt(a(t)) x0 + sqrt(1 - a(t)) e,    x0 = (z_s - sqrt(1 - a(s)) e) / sqrt(a(s)),    e = network(z_s, t),

    z_t = z_s + (sigma_t - sigma_s) v,         v = network(z_s, t)    in a flow model.

The network is asked about a latent that has not yet arrived at the level t, so the way forward does not come back to
the picture exactly, and guidance leads it further away. `Inverted.pin` therefore keeps the source of a run on the way
that was found here (Direct Inversion, Ju et al. 2024, arXiv 2310.01506): then it is the picture, to the last bit, and
the targets read their maps from the picture's own path.
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
Correct = Callable[[Latent, Step], Latent]  # of the predicted noise


class CannotInvert(ValueError):
    """A model whose sampler has no way back."""


@dataclass(frozen=True, eq=False)
class Inverted:
    """`path` [steps + 1]: the latents from noise (0) to the picture (last), [images, channels, height, width] each."""

    path: tuple[Latent, ...]

    @property
    def noise(self) -> Latent:
        """Where a run starts."""
        return self.path[0]

    @property
    def pin(self) -> Pinned:
        """First in a list of controls: row 0 follows the path."""
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
) -> Inverted:
    """The path of a picture's latents (`model.to_latent`) back to noise, one pass of the network a step.

    `prompt` says what the picture shows. `guidance` other than 1 makes the way back harder to walk again. `correct`
    may change the predicted noise of diffusion models. Raises CannotInvert for solvers that are neither DDIM nor flow
    models' Euler.
    """
    z = latents.to(model.device, precision(latents.dtype, model.dtype))
    job = Job([prompt], z, steps, guidance, negative=negative)
    job.bind(model)
    solver = job.solver(model)
    back = _way_back(model, correct)
    text = model.encode([prompt], [negative])
    layout = Layout(branches(model, guidance), 1, len(z))
    strength = torch.full((1,), float(guidance), device=z.device, dtype=z.dtype)
    path = [z]
    for step in reversed(solver.steps):
        here = Pass(model, step, text, strength, (), layout)
        output = answer(model, [here.request(z[None], step.t)])[0].unflatten(0, (len(layout.branches), len(z)))
        guided = guide(output[0], output[1], guidance) if len(output) == 2 else output[0]
        z = back(guided.to(z.dtype), z, step)
        path.append(z)
        if progress:
            progress(step, z[None])
    return Inverted(tuple(reversed(path)))


def _way_back(model: Model, correct: Correct | None) -> Callable[[Tensor, Tensor, Step], Tensor]:
    """One step towards the noise."""
    if model.scheduler == FLOW:
        if correct is not None:
            raise CannotInvert(
                "Corrections are of predicted noise, and a flow model predicts velocities. Invert without."
            )
        return lambda v, z, step: z + (step.t - max(step.t_next, 0.0)) / 1000 * v
    if model.scheduler != "ddim":
        raise CannotInvert(
            f"Only DDIM and the Euler solver of flow models can be walked backwards. Received {model.scheduler!r}. "
            'Load the model with scheduler="ddim" (--scheduler ddim).'
        )
    schedule = model.schedule()
    if schedule.prediction == "sample":
        raise CannotInvert("A network that predicts the picture says nothing of the noise in it. Choose another model.")

    def ddim(output: Tensor, z: Tensor, step: Step) -> Tensor:
        here, there = schedule.level(step.t_next), schedule.level(step.t)
        _, noise = clean_and_noise(output, z, here, schedule.prediction)
        return ddim_step(noise if correct is None else correct(noise, step), z, here, there)

    return ddim

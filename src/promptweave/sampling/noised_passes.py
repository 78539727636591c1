"""Passes of the network over an image to which noise is added: what it attends to, without a run and without inversion.

At the fraction f of a model's training times, t = f T, and for noise e ~ N(0, I),

    diffusion:  z = sqrt(a_t) x + sqrt(1 - a_t) e,        flow:  z = (1 - f) x + f e,

and each (time, noise) is one conditional pass. Observers sum over the noises of a time, as over the layers of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Number, Step, fraction
from promptweave.core.control import Hooks, Run
from promptweave.core.precision import precision
from promptweave.core.rows import Layout
from promptweave.models.base import Model
from promptweave.sampling.guidance import effective
from promptweave.sampling.loop import FLOW, noise_for
from promptweave.sampling.noise_levels import masked
from promptweave.sampling.passes import Pass, Request, answer
from promptweave.sampling.walk import Progress

TIMES = (0.7, 0.5, 0.3)  # measured: docs/benchmarks.md, "Images that exist"
NOISES = 2
BATCH = 4  # rows of one pass of the network
PHASES = 1000  # steps in which the syntax of a prompt that changes is read


@dataclass(frozen=True)
class Noising:
    """How much noise is added, and how often: `times` in [0, 1), fractions of the training times, noisiest first;
    `noises` for each of them, of which number n is drawn from `seed` + n. Raises ValueError for others."""

    times: tuple[Number, ...] = TIMES
    noises: int = NOISES
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.times:
            raise ValueError("times need at least one fraction in [0, 1), such as 0.3. Received none.")
        for time in self.times:
            fraction(time, "Each of times", below=True)
        if isinstance(self.noises, bool) or not isinstance(self.noises, int) or self.noises < 1:
            raise ValueError(f"noises must be a whole number of at least 1. Received {self.noises!r}.")
        object.__setattr__(self, "times", tuple(sorted(dict.fromkeys(self.times), reverse=True)))

    def run(self, run: Run) -> Run:
        """What observers know of these passes, from that of any run of the prompt: a step for each time."""
        return replace(run, steps=len(self.times), calls=len(self.times), images=1, guided=False)

    def steps(self, model: Model) -> tuple[Step, ...]:
        """One step for each time."""
        flow = model.scheduler == FLOW
        size = 1000 if flow else len(model.schedule().alpha_bar)
        times = [time * size if flow else round(time * size) for time in self.times]
        return tuple(Step(i, len(times), t, -1, i) for i, t in enumerate(times))


def noised(model: Model, latents: Tensor, noise: Tensor, t: int | float) -> Tensor:
    """The network's input for an image's latents with `noise`, at the training time `t`."""
    if model.scheduler == FLOW:
        return (1 - t / 1000) * latents + t / 1000 * noise
    level = model.schedule().level(t)
    return level**0.5 * latents + (1 - level) ** 0.5 * noise


@torch.no_grad()
def observe(
    model: Model,
    prompt: str,
    latents: Float[Tensor, "1 channels h w"],
    noising: Noising,
    hooks: Sequence[Hooks],
    *,
    guidance: Number = 1,
    picture: Float[Tensor, "1 rows columns 3"] | None = None,
    truncate: bool = False,
    progress: Progress | None = None,
) -> None:
    """Let `hooks` observe the passes over an image's `latents`; `guidance`: for networks that take it as an input.

    `picture`: its pixels, from 0 to 1, for networks that read a mask and the image around it: they are told to keep
    all of it.
    """
    height, width = latents.shape[-2] * model.factor, latents.shape[-1] * model.factor
    kind = precision(latents.dtype, model.dtype)
    image = latents.to(model.device, kind)
    noise = noise_for(model, noising.seed, noising.noises, (height, width)).to(image)
    strength = torch.full((1,), float(effective(model, guidance)), device=image.device, dtype=kind)
    phases = model.phases(prompt, PHASES)
    texts = {phase: model.encode([phase], [""], truncate=truncate) for phase in dict.fromkeys(phases)}
    beside, channels = masked(model), None
    if beside is not None and picture is not None:
        channels = beside(picture.to(image), torch.zeros(picture.shape[1:3], device=image.device))
    waiting: list[Request] = []
    for step, time in zip(noising.steps(model), noising.times, strict=True):
        text = texts[phases[round((1 - time) * (len(phases) - 1))]]
        here = Pass(model, step, text, strength, hooks, Layout(("cond",), 1), channels=channels)
        for number in range(noising.noises):
            waiting.append(here.request(noised(model, image, noise[number : number + 1], step.t)[None], step.t))
            if len(waiting) == BATCH:
                answer(model, waiting)
                waiting.clear()
        if waiting and any(type(hook).after_step is not Hooks.after_step for hook in hooks):
            answer(model, waiting)  # what is kept of a step is moved to main memory at its end
            waiting.clear()
        for hook in hooks:
            hook.after_step(step, image[None])
        if progress:
            progress(step, image[None])
    if waiting:
        answer(model, waiting)

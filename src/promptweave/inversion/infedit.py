"""InfEdit: Inversion-Free Image Editing with Natural Language (Xu et al. 2023, arXiv 2312.04965).

A consistency sampler jumps to the clean image in each step and adds fresh noise. If that noise is known, so is the
whole path of a given image x0, without any network (virtual inversion, section 3.1 and algorithm 2): with levels a_i
and noises n_i,

    z_i = sqrt(a_i) x0 + sqrt(1 - a_i) n_i,    n_(i+1) = sqrt(1 - eta) n_i + sqrt(eta) m_i,    n_0, m_i ~ N(0, I).

With `eta` of 1 every step has a noise of its own (the denoising diffusion consistent model, eq. 5); with 0 all share
one. The source's row predicts e_s at z_i, where the consistent noise n_i would have been right, and a target corrects
its own prediction e_t at y_i by the difference, e = e_t - e_s + n_i. In terms of the clean latents that they imply,

    y0 = x0 + x0(y_i, e_t) - x0(z_i, e_s),
    y_(i+1) = sqrt(a_(i+1)) y0 + sqrt(1 - a_(i+1)) (sqrt(1 - eta) e + sqrt(eta) m_i).

So the source is exactly the image, and a target with the same prompt too. The paper edits with LCMs, whose few steps
jump to the clean image; any model that predicts noise, v or the image will do, at the times of its own scheduler. Its
unified attention control is Prompt-to-Prompt, MasaCtrl and local blend together, which act on top of this.

Differs from the authors' code: the last step always ends in the clean latent, at their levels too; the noises come
from the run's seed; the image is encoded to the mean of the autoencoder, not to a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Number, Step
from promptweave.core.control import Control, Extra, Hooks, Latents, Predictions, Run, Text
from promptweave.core.fields import Option
from promptweave.core.schedule import Prediction, Schedule
from promptweave.inversion.edit_friendly import SourceGuidance
from promptweave.inversion.inverting import Inverted, Latent, Task
from promptweave.inversion.left_out import Skipping
from promptweave.inversion.of_source import OfSource
from promptweave.inversion.timetable import timetable
from promptweave.models.base import Model, Solver
from promptweave.sampling.solver import Ddim
from promptweave.sampling.steps import clean_and_noise, guide, output_of, roots


@dataclass(frozen=True)
class InfEdit(Skipping):
    """No inversion: the image's path is its latent under known noise, at no cost (virtual inversion of InfEdit)."""

    name: ClassVar[str] = "infedit"
    about: ClassVar[str] = "The image's path is its latent under known noise; targets are corrected by its error."
    tensors: ClassVar[Mapping[str, int]] = {"noises": 5}
    eta: Annotated[Number, Option("Fraction of the noise's variance that is new in each step.", low=0, high=1)] = 1.0
    source_guidance: Annotated[Number, Option("Guidance scale of the source.", low=0)] = 1.0

    def find(self, task: Task) -> Inverted:
        clean = task.latents
        schedule, steps = timetable(task.model, task.steps, tuple(clean.shape))
        begin = self.begin(len(steps))
        generator = torch.Generator().manual_seed(task.seed)
        noise, path, noises = drawn(clean, generator), list[Latent](), list[Latent]()
        for step in steps:
            signal, spread = roots(schedule.level(step.t), clean)
            path.append(signal * clean + spread * noise)
            noises.append(drawn(clean, generator))
            noise = (1 - self.eta) ** 0.5 * noise + self.eta**0.5 * noises[-1]
            task.tell(step, path[-1])
        path[: begin + 1] = [path[begin]] * (begin + 1)
        return Inverted((*path, clean), self, {"noises": torch.stack(noises)}, {"skipped steps": begin})

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        begin = self.begin(len(found.path) - 1)
        return (found.pin, SourceGuidance(self.source_guidance, begin), Virtual(found.path, self.source_guidance))

    def solver(self, found: Inverted, model: Model, prompts: int) -> Solver:
        return Ddcm(*timetable(model, len(found.path) - 1, tuple(found.noise.shape)), found.more["noises"], self.eta)


def drawn(like: Latent, generator: torch.Generator) -> Latent:
    """Noise of a latent's shape, drawn in single precision on the CPU."""
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)


class Ddcm(Ddim):
    """The denoising diffusion consistent model: to the clean latent and back to the next level, with given noise.

    `noises` [steps, images, channels, height, width] have the share `eta` of the variance, the same in every row.
    """

    def __init__(
        self,
        schedule: Schedule,
        steps: tuple[Step, ...],
        noises: Float[Tensor, "steps images channels height width"],
        eta: Number,
    ) -> None:
        super().__init__(schedule, steps)
        self.noises, self.eta = noises, eta

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """One step of the sampler."""
        step = self._at[t]
        clean, noise = clean_and_noise(output, z, self.schedule.level(t), self.schedule.prediction)
        fresh = self.noises[step.index].to(z)
        noise = (1 - self.eta) ** 0.5 * noise + self.eta**0.5 * fresh.repeat(len(z) // len(fresh), 1, 1, 1)
        signal, spread = roots(self.schedule.level(step.t_next), z)
        return signal * clean + spread * noise


@dataclass(frozen=True, eq=False)
class Virtual(OfSource):
    """Predictions corrected by the source's error on its known `path` [steps + 1] (virtual inversion)."""

    path: tuple[Float[Tensor, "images channels height width"], ...]
    source_guidance: Number

    def bind(self, run: Run) -> Hooks:
        if run.recorded and not run.guided and self.source_guidance != run.guidance:
            raise ValueError(
                "In a network that takes guidance as an input, InfEdit's source cannot have one of its own in an "
                f"edit of a recording. Received source_guidance={self.source_guidance}, guidance {run.guidance}. Make "
                "them the same, or edit the image instead of the recording."
            )
        return _Correcting(self, run)


class _Correcting(Hooks):
    def __init__(self, control: Virtual, run: Run) -> None:
        self.path, self.guidance, self.recorded = control.path, control.source_guidance, bool(run.recorded)
        self.computed, self.guided = len(run.prompts) - run.recorded, run.guided
        self.schedule = run.schedule()
        self.text: Text | None = None
        self.sides = dict[str, Text]()

    def condition(self, step: Step, text: Text) -> Text:
        if self.recorded and self.text is not text:
            self.text, self.sides = text, source_texts(text)
        return text

    def extras(self, step: Step) -> Mapping[str, Extra]:
        if not self.recorded:
            return {}
        here = self.path[step.index]
        latents = here.expand(self.computed, *here.shape)
        wanted = ["cond"] if self.guidance == 1 or not self.guided else ["cond", "uncond"]
        return {side: Extra(self.sides[side], controlled=False, latents=latents.to(here)) for side in wanted}

    def prediction(self, step: Step, made: Predictions) -> Latents:
        level, kind = self.schedule.level(step.t), self.schedule.prediction
        here, image = self.path[step.index].to(made.guided), self.path[-1].to(made.guided)
        if not self.recorded:
            source = made.guided[0]
        elif "uncond" in made.extra:
            source = guide(made.extra["uncond"][0], made.extra["cond"][0], self.guidance)
        else:
            source = made.extra["cond"][0]
        return corrected(made.guided, made.latents, source, here, image, level, kind, first=not self.recorded)


def corrected(
    outputs: Latents, z: Latents, source: Latent, here: Latent, image: Latent, level: float, kind: Prediction,
    *, first: bool,
) -> Latents:  # fmt: skip
    """The outputs that imply y0 = x0 + x0(y, e_t) - x0(z, e_s); the first is the source's, if there is one."""
    wrong, _ = clean_and_noise(source, here, level, kind)
    made = [clean_and_noise(output, y, level, kind)[0] for output, y in zip(outputs, z, strict=True)]
    cleans = [image if first and not row else image + (clean - wrong) for row, clean in enumerate(made)]
    return torch.stack([output_of(clean, y, level, kind) for clean, y in zip(cleans, z, strict=True)])


def source_texts(text: Text) -> dict[str, Text]:
    """The source's text as the conditional one, and its negative prompt as that."""

    def row(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:1]

    uncond, pooled = text.uncond[:1], row(text.uncond_pooled)
    values = row(text.only_values)
    return {
        "cond": Text(text.cond[:1], uncond, row(text.pooled), pooled, values),
        "uncond": Text(uncond, uncond, pooled, pooled),
    }

"""TurboEdit: Text-Based Image Editing Using Few-Step Diffusion Models (Deutch et al. 2024, arXiv 2408.00735).

Edit-friendly inversion (`edit_friendly`) leaves artifacts with models of a few steps. Two changes mend it:

1.  Time shift (section 4.1). The noise maps of a few steps have the statistics of less noisy times. So the image is
    noised to an earlier time than the network is told, by `shift` times the distance d of two steps:

        x_i = sqrt(a(s_i)) x0 + sqrt(1 - a(s_i)) n_i,    s_i = t_i - shift d (x0 itself where s_i <= 0),
        noise(i) = x_(i+1) - mu(x_i, e(x_i, t_i, source)),    mu: the mean of DDPM from t_i to t_(i+1),

    and the noise of the last step, of which only an outlier can be large, is scaled down to a root mean square of
    `limit`.
2.  Pseudo-guidance (section 4.2). The edit is the sum of a move due to the target's own trajectory and of one due to
    its prompt, and only the latter is amplified, by w:

        y_(i+1) = mu(y, e(y, source)) + w (mu(y, e(y, target)) - mu(y, e(y, source))) + noise(i).

    mu is linear in the predictions, so that is guidance away from the source's prompt instead of an empty one.

The run starts after the fraction `skip` of the steps: 4 of 5 remain in the paper, 3 of 4 here. The source's row is kept
on its path, and so is exactly the image.

Differs from the authors' code: noises come from the run's seed; `limit` is a root mean square, which their norm of 15.5
is for latents of 64 x 64; the times are those of the model's own scheduler. With a guidance other than 1, both
predictions at y are guided alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from promptweave.core.clock import Number, Step
from promptweave.core.control import Control, Extra, Hooks, Latents, Predictions, Run, Text
from promptweave.core.fields import Option
from promptweave.inversion.edit_friendly import Ddpm, posterior_mean
from promptweave.inversion.infedit import drawn, source_texts
from promptweave.inversion.inverting import CannotInvert, Inverted, Task
from promptweave.inversion.left_out import Skipping, check_begin
from promptweave.inversion.of_source import OfSource
from promptweave.inversion.timetable import timetable
from promptweave.models.base import Model, Solver
from promptweave.sampling.steps import guide, roots

MOST = 10  # steps


@dataclass(frozen=True)
class TurboEdit(Skipping):
    """Edit-friendly inversion for models of a few steps: shifted times and pseudo-guidance (TurboEdit)."""

    name: ClassVar[str] = "turbo-edit"
    about: ClassVar[str] = "Edit-friendly inversion for few steps, with shifted times and pseudo-guidance."
    tensors: ClassVar[Mapping[str, int]] = {"noises": 5}
    nearest: ClassVar[bool] = True
    skip: Annotated[Number, Option("Fraction of the steps that are left out.", low=0, high=1)] = 0.2
    shift: Annotated[Number, Option("How many steps less noisy the image is than the network is told.", low=0)] = 1.0
    weight: Annotated[Number, Option("Factor on what the target's prompt changes (pseudo-guidance).", low=0)] = 1.5
    limit: Annotated[Number, Option("Largest root mean square of the last step's noise; 0: none.", low=0)] = 0.121

    @torch.no_grad()
    def find(self, task: Task) -> Inverted:
        clean, model = task.latents, task.model
        schedule, steps = timetable(model, task.steps, tuple(clean.shape))
        if len(steps) > MOST:
            raise CannotInvert(
                f"TurboEdit is for models of a few steps, at most {MOST}, such as SDXL-Turbo, LCMs or toybox-fast. "
                f"Received {len(steps)} steps of {model.name}. Load such a model, or choose edit-friendly."
            )
        begin = self.begin(len(steps))
        acting, generator = steps[begin:], torch.Generator().manual_seed(task.seed)
        apart = acting[0].t - max(acting[0].t_next, 0)
        path = [clean] * (len(steps) + 1)
        for step in acting:
            noise, time = drawn(clean, generator), step.t - int(self.shift * apart)
            if time > 0:
                signal, spread = roots(schedule.level(time), clean)
                path[step.index] = signal * clean + spread * noise
        path[:begin] = [path[begin]] * begin
        noises = [torch.zeros_like(clean)] * begin
        for step in acting:
            z = path[step.index]
            output = task.predict(z, step, task.guidance)
            levels = schedule.level(step.t), schedule.level(step.t_next)
            noises.append(path[step.index + 1] - posterior_mean(output, z, *levels, 1, schedule.prediction))
            task.tell(step, z)
        size = noises[-1].square().mean((1, 2, 3), keepdim=True).sqrt()
        if self.limit:
            noises[-1] = noises[-1] * (self.limit / size.clamp_min(1e-12)).clamp(max=1)
        figures = {"skipped steps": begin, "size of the last noise": float(size.mean())}
        return Inverted(tuple(path), self, {"noises": torch.stack(noises)}, figures)

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        return (found.pin, PseudoGuidance(self.weight, self.begin(len(found.path) - 1)))

    def solver(self, found: Inverted, model: Model, prompts: int) -> Solver:
        schedule, steps = timetable(model, len(found.path) - 1, tuple(found.noise.shape))
        return Ddpm(schedule, steps, found.more["noises"], 1)


@dataclass(frozen=True, eq=False)
class PseudoGuidance(OfSource):
    """Predictions are moved away from those with the source's prompt, by the factor `weight`; `begin`: first step."""

    weight: Number
    begin: int

    def bind(self, run: Run) -> Hooks:
        check_begin(self.begin, run)
        return _Amplified(self, run)


class _Amplified(Hooks):
    def __init__(self, control: PseudoGuidance, run: Run) -> None:
        self.weight, self.first_step, self.guidance = control.weight, control.begin, run.guidance
        self.alone = len(run.prompts) == 1  # the source has no prompt but its own
        self.text: Text | None = None
        self.source: Text | None = None

    def condition(self, step: Step, text: Text) -> Text:
        if self.text is not text:
            self.text, self.source = text, source_texts(text)["cond"]
        return text

    def extras(self, step: Step) -> Mapping[str, Extra]:
        return {} if self.alone or self.weight == 1 else {"source": Extra(self.source, controlled=False)}

    def prediction(self, step: Step, made: Predictions) -> Latents:
        if "source" not in made.extra:
            return made.guided
        source: Tensor = made.extra["source"]
        if made.uncond is not None:
            source = guide(made.uncond, source, self.guidance)
        return guide(source, made.guided, self.weight)

"""Proximal guidance on negative-prompt inversion (Han et al. 2024, arXiv 2306.05414).

With the source prompt as unconditional text, guidance adds w d with d = e(z, target) - e(z, source). Where the two
prompts hardly differ d is noise, and a proximal step removes it (section 3.2): with a threshold l, the quantile
`quantile` of |d|,

    hard (l0)  prox(d) = d where |d| > l, else 0        soft (l1)  prox(d) = sign(d) max(|d| - l, 0),

    e = e(z, source) + w prox(d).

Where prox(d) is 0 (outside its mask, made wider by `dilate` cells), the prediction of the clean image x0 may be pulled
towards the image's latent z0 in the steps below the training time `below` (reconstruction guidance), and the latents
towards the path of the inversion (inversion guidance):

    x0 <- x0 - reconstruction (x0 - z0),        z <- z - follow (z - z*)        outside the mask.

Differs from the authors' code: its "l0" is the soft threshold, and its "l1" shrinks twice, but for l < d < 2l, so that
d below -l is moved by 2l and changes its sign for -2l < d < -l; its quantile is that of all rows together, among which
the source has d = 0, and here each row has its own; its mask is where |prox(d)| exceeds l, and it pulls to the path
only in steps in which it pulls to the image. `reference_compat` computes prox and mask as published. Neither kind of
pull acts in its published runs, because the flag is lost on the way, so both are off by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from promptweave.core.clock import Number, Step
from promptweave.core.control import Control, Hooks, Latents, NoEffect, Predictions, Run
from promptweave.core.fields import Option
from promptweave.inversion.ddim import ddim_path
from promptweave.inversion.inverting import Inversion, Inverted, Task
from promptweave.inversion.negative_prompt import as_negative, unconditional
from promptweave.inversion.of_source import OfSource
from promptweave.sampling.steps import clean_and_noise

Norm = Literal["l0", "l1"]


@dataclass(frozen=True)
class Proximal(Inversion):
    """Negative-prompt inversion whose guidance leaves out small differences (proximal guidance)."""

    name: ClassVar[str] = "proximal"
    about: ClassVar[str] = "Negative-prompt inversion, with guidance only where the prompts clearly differ."
    tensors: ClassVar[Mapping[str, int]] = {"uncond": 3, "levels": 2, "velocity": 0}
    quantile: Annotated[Number, Option("Quantile of the differences that are left out.", low=0, high=1)] = 0.7
    norm: Annotated[Norm, Option("Threshold: l0 (hard) or l1 (soft).")] = "l0"
    reconstruction: Annotated[
        Number, Option("How far the clean image is pulled to the given one elsewhere.", low=0, high=1)
    ] = 0.0
    below: Annotated[int, Option("Training time below which it is pulled.", low=0)] = 400
    follow: Annotated[
        Number, Option("How far the latents are pulled to the inversion's path elsewhere.", low=0, high=1)
    ] = 0.0
    dilate: Annotated[int, Option("Latent cells by which the region that is not pulled is widened.", low=0)] = 1
    reference_compat: Annotated[bool, Option("Thresholds as in the authors' code.")] = False
    pin: Annotated[bool, Option("Also keep the source on the path of its inversion.")] = False

    def find(self, task: Task) -> Inverted:
        schedule = task.schedule()
        levels = [[schedule.level(step.t), schedule.level(step.t_next)] for step in task.steps_of_run]
        more = {**unconditional(task), "levels": torch.tensor(levels, dtype=torch.float64)}
        more["velocity"] = torch.tensor(schedule.prediction == "v_prediction")
        return Inverted(ddim_path(task), self, more)

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        return (*((found.pin,) if self.pin else ()), as_negative(found), Shrunk(self, found))


@dataclass(frozen=True, eq=False)
class Shrunk(OfSource):
    """Guidance under a proximal step, for a run of this inversion."""

    options: Proximal
    found: Inverted

    def bind(self, run: Run) -> Hooks:
        if not run.guided or run.guidance == 1:
            raise NoEffect(
                f"Proximal guidance changes what guidance adds, and guidance {run.guidance} adds nothing. Choose a "
                "guidance above 1, or another inversion."
            )
        return _Shrinking(self.options, self.found, run.recorded)


class _Shrinking(Hooks):
    def __init__(self, options: Proximal, found: Inverted, first: int) -> None:
        self.options, self.found, self.first = options, found, first
        self.outside: Tensor | None = None  # where nothing is edited, 1 or 0
        self.correction: Tensor | None = None

    def prediction(self, step: Step, made: Predictions) -> Latents:
        if made.uncond is None:
            return made.guided
        mine, d = self.options, made.cond - made.uncond
        kept = prox(d, mine.quantile, mine.norm, mine.reference_compat)
        factor = torch.where(d == 0, 0, kept / torch.where(d == 0, 1, d))  # so that it holds for any scale
        guided = made.uncond + (made.guided - made.uncond) * factor
        inside = kept.abs() > _quantile(d.abs().flatten(), mine.quantile) if mine.reference_compat else kept != 0
        self.outside = 1 - widened(inside.to(d.dtype), mine.dilate)
        self.correction = None
        if mine.reconstruction and step.t < mine.below:
            a, b = (float(level) for level in self.found.more["levels"][step.index])
            kind = "v_prediction" if self.found.more["velocity"] else "epsilon"
            clean, _ = clean_and_noise(guided, made.latents, a, kind)
            target = self.found.path[-1].to(clean)
            self.correction = -mine.reconstruction * b**0.5 * (clean - target) * self.outside
        return guided

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        moved = z[self.first :]
        if self.correction is not None:
            moved = moved + self.correction
        if self.options.follow and self.outside is not None:
            path = self.found.path[step.index + 1].to(z)
            moved = moved - self.options.follow * (moved - path) * self.outside
        return z if moved is z else torch.cat([z[: self.first], moved])


def prox(d: Latents, quantile: Number, norm: Norm, compat: bool = False) -> Latents:
    """The proximal step of differences [prompts, images, channels, h, w]."""
    size = d.abs()
    if compat:
        limit = _quantile(size.flatten(), quantile)
        soft = d - d.clamp(-limit, limit)
        if norm == "l0":
            return soft
        return torch.where(soft < 0, soft + limit, torch.where(soft >= limit, soft - limit, soft))
    limit = torch.stack([_quantile(row, quantile) for row in size.flatten(2).flatten(0, 1)])
    limit = limit.view(*d.shape[:2], 1, 1, 1)
    return torch.where(size > limit, d, 0) if norm == "l0" else d.sign() * (size - limit).clamp(min=0)


def _quantile(values: Tensor, quantile: Number) -> Tensor:
    """The quantile, interpolated linearly; `torch.quantile` refuses large tensors and half precision."""
    ranked = values.float().sort().values if values.dtype in (torch.float16, torch.bfloat16) else values.sort().values
    place = quantile * (len(ranked) - 1)
    low, part = int(place), place - int(place)
    high = min(low + 1, len(ranked) - 1)
    return (ranked[low] + (ranked[high] - ranked[low]) * part).to(values.dtype)


def widened(mask: Latents, cells: int) -> Latents:
    """A mask [prompts, images, channels, h, w] of zeros and ones, made wider by so many cells."""
    flat = mask.flatten(0, 1)
    return F.max_pool2d(flat, 2 * cells + 1, 1, cells).view_as(mask)

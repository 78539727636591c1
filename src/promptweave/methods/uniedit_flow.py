"""UniEdit-Flow: Unleashing Inversion and Editing in the Era of Flow Models (Jiao et al. 2025, arXiv 2504.13109).

The edit half; the inversion is `inversion.UniInv`. The target starts from the source's latent in the last fraction
`strength` of the steps (delayed injection). With v_s and v_t the velocities at the target's latent under the source's
and the target's prompt, and d = v_t - v_s, both at guidance 1, in each step

    m = minmax over the latent's cells of mean over channels of |d|,
    v = m v_t + (1 - m) v_s + omega (1 + m) d.

Where guidance is used, v_t and v_s in the first two terms are guided with the same unconditional prediction, and d is
not, so that guidance 1 is the paper.

Differs from the authors' code: one mean of absolute values for both families (theirs is signed for Stable Diffusion 3),
over cells of the latent (theirs over tokens for FLUX); equal velocities give m = 0 instead of 0 / 0; the steps are
counted by rounding (theirs rounds for FLUX and cuts off for Stable Diffusion 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Number, Step, fraction, is_number
from promptweave.core.control import Control, Extra, Hooks, Latents, NoEffect, Predictions, Probe, Run, Text
from promptweave.core.fields import Option
from promptweave.core.kept import NOTHING, Kept
from promptweave.core.shown import shown
from promptweave.core.targets import SOURCE

AS_SOURCE = "as the source"  # name of the predictions under the source's prompt


@dataclass(frozen=True)
class UniEdit(Control):
    """Edit along the difference of two velocities, from the source's own latents; for flow models (UniEdit-Flow).

    `strength`: fraction of the steps that act, the last ones. `omega`: how far the difference is followed. `guidance`:
    that of the targets; None: 1, as published, where the source follows a known path, such as that of an image, else
    the run's. Raises ValueError for diffusion models, NoEffect if no step acts.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"joint"})
    inversion: ClassVar[str] = "uni-inv:pin=true"
    strength: Annotated[Number, Option("Fraction of the steps that act, the last ones.", low=0, high=1)] = 0.6
    omega: Annotated[Number, Option("How far the difference of the velocities is followed.", low=0)] = 5.0
    guidance: Annotated[
        Number | None,
        Option("Guidance scale of the targets. [1 for images, else the run's]", low=0, group="Advanced"),
    ] = None

    def bind(self, run: Run) -> Hooks:
        if not run.flow:
            raise ValueError(
                "UniEdit follows the velocities of a flow model (Stable Diffusion 3, FLUX), and this model is a "
                "diffusion model. Use Replace or Refine."
            )
        for name in ("omega", "guidance"):
            value = getattr(self, name)
            if (value is not None or name == "omega") and not is_number(value):
                raise ValueError(f"{name} of UniEdit is a finite number. Received {shown(value)}.")
        acting = round(fraction(self.strength, "strength of UniEdit") * run.steps)
        if not acting:
            raise NoEffect(
                f"UniEdit needs a strength that covers at least one of the {run.steps} steps. "
                f"Received strength={self.strength}."
            )
        if len(run.prompts) < 2:
            raise NoEffect("UniEdit needs a target prompt. Received the source alone.")
        usual = 1 if run.pinned else run.guidance
        guidance = usual if self.guidance is None else self.guidance
        begin = run.steps - acting
        return _Fusing(
            omega=self.omega,
            guidance=guidance,
            guided=run.guided,
            pinned=run.pinned,
            begin=begin,
            first_step=begin if run.pinned and not run.recorded else 0,
            targets=1 - run.recorded,
        )

    def reads(self, run: Run) -> Kept:
        return NOTHING

    def idle(self, run: Run) -> bool:
        return not round(self.strength * run.steps)


def weight_of(difference: Latents) -> Float[Tensor, "prompts images 1 height width"]:
    """m [prompts, images, 1, height, width]: the mean of |d| over channels, scaled to [0, 1] over the cells."""
    size = difference.abs().mean(2, keepdim=True)
    low, high = size.amin((-2, -1), keepdim=True), size.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (size - low) / (high - low).clamp(min=torch.finfo(size.dtype).tiny), 0)


@dataclass(kw_only=True)
class _Fusing(Hooks):
    omega: Number
    guidance: Number  # of the targets
    guided: bool  # by an unconditional prediction
    pinned: bool
    begin: int
    first_step: int
    targets: int  # the first row of the predictions that is a target's
    seen: Text | None = None
    text: Text | None = None
    areas: list[Tensor] = field(default_factory=list[Tensor])

    def strength(self, step: Step, guidance: Tensor) -> Tensor:
        strength = torch.full_like(guidance, float(self.guidance))
        if not self.pinned:  # a pinned source is where it is, whatever its guidance
            strength[SOURCE] = guidance[SOURCE]
        return strength

    def condition(self, step: Step, text: Text) -> Text:
        if self.seen is not text:
            self.seen, self.text = text, _of_source(text)
        return text

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        return z[:1].expand_as(z).clone() if step.index <= self.begin else z

    def extras(self, step: Step) -> Mapping[str, Extra]:
        return {AS_SOURCE: Extra(text=self.text, controlled=False)} if step.index >= self.begin else {}

    def prediction(self, step: Step, made: Predictions) -> Latents:
        if not made.extra:
            return made.guided
        difference = (made.cond - made.extra[AS_SOURCE])[self.targets :]
        m = weight_of(difference)
        scale = self.guidance if self.guided and made.uncond is not None else 1
        self.areas.append(m.mean())
        changed = made.guided.clone()  # m g(v_t) + (1 - m) g(v_s) is g(v_t) - (1 - m) scale d
        changed[self.targets :] += (self.omega * (1 + m) - (1 - m) * scale) * difference
        return changed

    def report(self) -> dict[str, Any]:
        return {"latent_steps": len(self.areas), "edit_area": [float(area) for area in self.areas[-1:]]}


def _of_source(text: Text) -> Text:
    """The source's text alone."""

    def one(x: Tensor | None) -> Any:
        return None if x is None else x[: SOURCE + 1]

    return replace(
        text, cond=one(text.cond), uncond=one(text.uncond), pooled=one(text.pooled),
        uncond_pooled=one(text.uncond_pooled), only_values=one(text.only_values),
    )  # fmt: skip

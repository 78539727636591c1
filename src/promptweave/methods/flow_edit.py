"""FlowEdit: Inversion-Free Text-Based Editing Using Pre-Trained Flow Models (Kulikov et al. 2024, arXiv 2412.08629).

With x the latent of the source image, z that of the edit (x at first), s the fraction of noise, and n fresh noise,

    z_source = (1 - s) x + s n;   z_target = z + z_source - x;   z <- z + ds (v(z_target, target) - v(z_source, source))

in the last fraction `strength` of the steps. In the last fraction `free`, the target is sampled as usual (SDEdit).

Differs from the authors' code: the noise of each step comes from the run's seed; there is one noise per step (their
n_avg of 1); `free` works. The source row holds x, so a `LocalBlend` after this control keeps x outside its mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from promptweave.core.clock import Number, Step, fraction
from promptweave.core.control import Control, Hooks, NoEffect, Probe, Run
from promptweave.core.fields import Option

# Published guidance of generation, of the source and of the target; True: classifier-free, False: a network input.
PUBLISHED = {True: (7.0, 3.5, 13.5), False: (3.5, 1.5, 5.5)}
PUBLISHED_STRENGTH = {True: 33 / 50, False: 24 / 28}
LEVEL = 1000  # a flow model's time divided by the fraction of noise in the latent


@dataclass(frozen=True)
class FlowEdit(Control):
    """Edit without inversion, along the difference of two velocities; for flow models (FlowEdit).

    `strength`: fraction of the steps that act, the last ones; None: as published, 33 of 50 with classifier-free
    guidance (Stable Diffusion 3), 24 of 28 if guidance is an input of the network (FLUX). `free`: fraction of the
    steps, the last ones, in which the target is sampled as usual. `source_guidance` and `target_guidance`: guidance
    scales; None: as published, in proportion to the run's guidance: 3.5 and 13.5 for 7 with classifier-free guidance
    (1 switches both off), 1.5 and 5.5 for 3.5 as an input. Given values act whatever the run's guidance is. Raises
    ValueError for diffusion models and on recordings, NoEffect if no step acts.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"joint"})
    needs: ClassVar[frozenset[Literal["noise", "latents", "maps"]]] = frozenset({"latents"})
    strength: Annotated[
        Number | None,
        Option("Fraction of the steps that act, the last ones. [0.66; 0.857 for FLUX]", low=0, high=1),
    ] = None
    free: Annotated[
        Number,
        Option(
            "Fraction of the steps, the last ones, in which the target is sampled as usual.",
            low=0,
            high=1,
            group="Advanced",
        ),
    ] = 0.0
    source_guidance: Annotated[
        Number | None, Option("Guidance scale of the source. [as published]", low=0, group="Advanced")
    ] = None
    target_guidance: Annotated[
        Number | None, Option("Guidance scale of the targets. [as published]", low=0, group="Advanced")
    ] = None

    def bind(self, run: Run) -> Hooks:
        if not run.flow:
            raise ValueError(
                "FlowEdit follows the velocities of a flow model (Stable Diffusion 3, FLUX), and this model is a "
                "diffusion model. Use Replace or Refine."
            )
        if run.recorded:
            raise ValueError(
                "FlowEdit first generates the source alone and reads latents that a recording does not hold. Edit the "
                "source's prompt or image instead of the recording."
            )
        strength = PUBLISHED_STRENGTH[run.guided] if self.strength is None else self.strength
        acting = round(fraction(strength, "strength of FlowEdit") * run.steps)
        free = round(fraction(self.free, "free of FlowEdit") * run.steps)
        if acting <= free:
            raise NoEffect(
                f"FlowEdit needs a strength that covers at least one of the {run.steps} steps and more than free does. "
                f"Received strength={strength:g}, free={self.free}."
            )
        if len(run.prompts) < 2:
            raise NoEffect("FlowEdit needs a target prompt. Received the source alone.")
        clean = None if run.first_pass is None else run.first_pass.latents
        generators = [torch.Generator().manual_seed(run.seed + image) for image in range(run.images)]
        own, *published = PUBLISHED[run.guided]
        if run.guided and run.guidance == 1:  # switched off
            published = [own, own]
        given = self.source_guidance, self.target_guidance
        for name, value in zip(("source", "target"), given, strict=True):
            if value is not None and (isinstance(value, bool) or not math.isfinite(value)):
                raise ValueError(f"{name}_guidance of FlowEdit is a finite number, or None. Received {value!r}.")
        source, target = (
            usual * run.guidance / own if value is None else value
            for value, usual in zip(given, published, strict=True)
        )
        if run.guided and target == 0:
            raise NoEffect(
                "FlowEdit with a target_guidance of 0 follows the unconditional prediction, in which no word of the "
                f"target has a say. Received guidance={run.guidance:g}, target_guidance={self.target_guidance}. Give "
                "1 for no guidance, or more."
            )
        return _Walking(
            guidance=(source, target),
            clean=clean,
            generators=generators,
            first_step=run.steps - acting,
            free_from=run.steps - free,
        )


@dataclass(kw_only=True)
class _Walking(Hooks):
    guidance: tuple[Number, Number]
    clean: Tensor | None
    generators: list[torch.Generator]
    first_step: int
    free_from: int
    noise: Tensor | None = None
    before: Tensor | None = None
    edits: Tensor | None = None
    steps: set[int] = field(default_factory=set[int])

    def strength(self, step: Step, guidance: Tensor) -> Tensor:
        strength = torch.full_like(guidance, float(self.guidance[1]))
        strength[0] = float(self.guidance[0])
        return strength

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        x = self._source()
        edits = x.expand(len(z) - 1, *x.shape) if step.index == self.first_step else z[1:]
        if step.index > self.free_from:
            return z
        level = step.t / LEVEL
        draws = [torch.randn(x.shape[1:], generator=g, dtype=torch.float32) for g in self.generators]
        self.noise = torch.stack(draws).to(x)
        source = (1 - level) * x + level * self.noise
        self.edits = edits
        self.before = torch.cat([source[None], edits + source - x])
        return self.before

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        assert self.before is not None and self.edits is not None and self.noise is not None
        self.steps.add(step.index)
        x = self._source()
        if step.index >= self.free_from:
            level = max(float(step.t_next), 0.0) / LEVEL
            return torch.cat([((1 - level) * x + level * self.noise)[None], z[1:]])
        moved = z - self.before
        return torch.cat([x[None], self.edits + moved[1:] - moved[:1]])

    def _source(self) -> Tensor:
        assert self.clean is not None  # sampling gives it before the first step
        return self.clean

    def report(self) -> dict[str, Any]:
        return {"latent_steps": len(self.steps)}

"""Second-order inversions of flow models, and the solvers that lead back: RF-Solver, FireFlow and UniEdit-Flow's.

With x the latent, s the noise level, h the (signed) step to the next level and v the velocity:

    RF-Solver (Wang et al. 2024, arXiv 2411.04746): x' = x + h v + h^2 / 2 (m - v) / (h / 2) = x + h m, where
        m = v(x + h/2 v(x, s), s + h/2): the explicit midpoint rule, two evaluations in a step, in both directions.
    FireFlow (Deng et al. 2024, arXiv 2412.07517): the same with a remembered velocity, m = v(x + h/2 p, s + h/2), where
        p is the m of the step before, in the first step v(x, s): one evaluation more than there are steps.
    UniInv (Jiao et al. 2025, arXiv 2504.13109): the inverse of Euler's method by one fixed-point round that starts
        warm, p <- v(x + h p, s + h), x' = x + h p, with the p of the step before.

RF-Solver and FireFlow let the target use the source's values in the first `inject` steps, in the single blocks of FLUX
and in the later half of the joint blocks elsewhere; here the source's row is computed beside the target's, so they are
those of the source at the same step.

Differs from the authors' code: only values of the image are injected (theirs include the source's text); values are
those of sampling, at the same evaluation, and not of the inversion, at its other end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Control, Hooks, Run, Text
from promptweave.core.fields import Option
from promptweave.core.kept import Kept, everything
from promptweave.core.rows import Rows
from promptweave.core.site import Site
from promptweave.core.targets import SOURCE
from promptweave.inversion.inverting import Inversion, Inverted, Latent, Task
from promptweave.models.base import Model, Solver


@dataclass(frozen=True)
class Backwards(Inversion):
    """A walk from the image to noise, x' = x + h m, with a velocity m of its own in each step."""

    flow: ClassVar[bool] = True
    diffusion: ClassVar[bool] = False
    pin: Annotated[bool, Option("Also keep the source on the path of its inversion.")] = False

    @torch.no_grad()
    def find(self, task: Task) -> Inverted:
        task.velocities()
        z, path = task.latents, [task.latents]
        velocity: Latent | None = None
        for step in reversed(task.steps_of_run):
            velocity = self.velocity(task, z, step, velocity)
            z = z + span(step)[2] * velocity
            path.append(z)
            task.tell(step, z)
        return Inverted(tuple(reversed(path)), self)

    def velocity(self, task: Task, z: Latent, step: Step, before: Latent | None) -> Latent:
        """The velocity of a step whose less noisy end is `z`; `before`: that of the step before, if there is one."""
        raise NotImplementedError

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        return (found.pin,) if self.pin else ()


@dataclass(frozen=True)
class Injecting(Backwards):
    """A walk whose targets may use the source's values in the first steps."""

    inject: Annotated[int, Option("Number of first steps in which targets use the source's values.", low=0)] = 0

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        return (*super().controls(found), *((SourceValues(self.inject),) if self.inject else ()))


@dataclass(frozen=True)
class RFSolver(Injecting):
    """The midpoint rule in both directions, and the source's values in the first steps (RF-Solver-Edit)."""

    name: ClassVar[str] = "rf-solver"
    about: ClassVar[str] = "The midpoint rule, two passes of the network in a step, in both directions."

    def velocity(self, task: Task, z: Latent, step: Step, before: Latent | None) -> Latent:
        begin, middle, h = span(step)
        return at(task, z + h / 2 * at(task, z, step, begin), step, middle)

    def solver(self, found: Inverted, model: Model, prompts: int) -> Solver:
        return Midpoint(steps_of(model, found))


@dataclass(frozen=True)
class FireFlow(Injecting):
    """The midpoint rule with a remembered velocity, in both directions (FireFlow)."""

    name: ClassVar[str] = "fireflow"
    about: ClassVar[str] = "The midpoint rule with the velocity of the step before, one pass in a step."

    def velocity(self, task: Task, z: Latent, step: Step, before: Latent | None) -> Latent:
        begin, middle, h = span(step)
        remembered = at(task, z, step, begin) if before is None else before
        return at(task, z + h / 2 * remembered, step, middle)

    def solver(self, found: Inverted, model: Model, prompts: int) -> Solver:
        return Remembering(steps_of(model, found))


@dataclass(frozen=True)
class UniInv(Backwards):
    """The inverse of Euler's method by a fixed-point round that starts warm (UniEdit-Flow's inversion)."""

    name: ClassVar[str] = "uni-inv"
    about: ClassVar[str] = "Euler's method inverted by a fixed point, one pass in a step (UniEdit-Flow)."

    def velocity(self, task: Task, z: Latent, step: Step, before: Latent | None) -> Latent:
        begin, _, h = span(step)
        warm = at(task, z, step, begin) if before is None else before
        return task.predict(z + h * warm, step)


def span(step: Step) -> tuple[float, float, float]:
    """The times of a step's less noisy end and of its middle, and the noise levels from that end to the other."""
    end = max(float(step.t_next), 0.0)
    return end, (end + step.t) / 2, (step.t - end) / 1000


def at(task: Task, z: Latent, step: Step, t: float, text: Text | None = None) -> Latent:
    """The velocity at a time, without guidance."""
    return task.predict(z, replace(step, t=t), text=text)


def steps_of(model: Model, found: Inverted) -> Sequence[Step]:
    """The steps of the model's own solver."""
    made = model.solver(len(found.path) - 1, tuple(found.noise.shape), 1, 0)
    assert made is not None
    return made.steps


class Midpoint:
    """The explicit midpoint rule on the steps of a flow model: two network calls in a step."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self._at = {t: step for step in steps for t in self.calls(step)}
        self._begin: Tensor | None = None

    def start(self, noise: Tensor) -> Tensor:
        """The noise itself."""
        return noise

    def calls(self, step: Step) -> Sequence[int | float]:
        """The step's time and its middle."""
        return step.t, span(step)[1]

    def scale(self, z: Tensor, t: int | float) -> Tensor:
        """The latent itself."""
        return z

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """The latent in the middle of the step, then that at its end."""
        step = self._at[t]
        h = span(step)[2]
        if t == step.t:
            self._begin = z
            return z - h / 2 * output
        assert self._begin is not None
        return self._begin - h * output


class Remembering:
    """The midpoint rule with the velocity of the step before: one network call in a step, two in the first."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self._at = {t: step for step in steps for t in self.calls(step)}
        self._velocity: Tensor | None = None

    def start(self, noise: Tensor) -> Tensor:
        """The noise itself."""
        return noise

    def calls(self, step: Step) -> Sequence[int | float]:
        """The middle of the step; in the first step its time before that."""
        middle = span(step)[1]
        return (step.t, middle) if step.index == 0 else (middle,)

    def scale(self, z: Tensor, t: int | float) -> Tensor:
        """The latent in the middle of the step, by the remembered velocity."""
        step = self._at[t]
        if t == step.t or self._velocity is None:
            return z
        return z - span(step)[2] / 2 * self._velocity.view_as(z)

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """The latent at the end of the step; before the first step's middle, the latent itself."""
        step, self._velocity = self._at[t], output
        return z if t == step.t else z - span(step)[2] * output


@dataclass(frozen=True)
class SourceValues(Control):
    """Targets use the source's values of the image in the first `steps` steps, in the later joint layers."""

    steps: int

    def reads(self, run: Run) -> Kept:
        return everything(run)

    def bind(self, run: Run) -> Hooks:
        joint = [site.name for site in run.sites if site.kind == "joint"]
        single = [name for name in joint if "single" in name]
        return _Injecting(self.steps, frozenset(single or joint[len(joint) // 2 :]), range(1, len(run.prompts)))


@dataclass
class _Injecting(Hooks):
    steps: int
    names: frozenset[str]
    rows: Sequence[int]

    def state(self, step: Step) -> bool:
        return step.index < self.steps

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        if site.name not in self.names or step.index >= self.steps:
            return rows
        source = rows["cond"][SOURCE].v
        for row in self.rows:
            rows = rows.put("cond", row, v=site.with_image(rows["cond"][row].v, site.of_image(source)))
        return rows

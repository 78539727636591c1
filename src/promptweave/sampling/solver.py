"""DDIM on a schedule's table: our own solver, deterministic, with the same results as the published code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Control
from promptweave.core.schedule import Schedule
from promptweave.sampling.steps import ddim_step


class Ddim:
    """Deterministic DDIM (Song et al. 2021, eta = 0): one call per step, latents of unit variance throughout.

    `steps`: their number, or the steps themselves.
    """

    rewinds = True

    def __init__(self, schedule: Schedule, steps: int | Sequence[Step]) -> None:
        self.schedule = schedule
        self.steps: Sequence[Step] = schedule.steps(steps) if isinstance(steps, int) else steps
        self._at = {step.t: step for step in self.steps}

    def start(self, noise: Tensor) -> Tensor:
        """The noise itself."""
        return noise

    def calls(self, step: Step) -> tuple[int | float, ...]:
        """One call, at the step's time."""
        return (step.t,)

    def scale(self, z: Tensor, t: int | float) -> Tensor:
        """The latent itself."""
        return z

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """One step of DDIM."""
        step, schedule = self._at[t], self.schedule
        return ddim_step(output, z, schedule.level(step.t), schedule.level(step.t_next), schedule.prediction)

    def shares(self, t: int | float) -> tuple[float, float]:
        """The square roots of alpha_bar and of what it lacks to 1."""
        level = self.schedule.level(t)
        return level**0.5, (1 - level) ** 0.5


class Visits:
    """Network calls at the given training times, in this order; controls move the latents."""

    def __init__(self, times: Sequence[int]) -> None:
        last = len(times) - 1
        self.steps: Sequence[Step] = [
            Step(i, len(times), t, times[i + 1] if i < last else -1) for i, t in enumerate(times)
        ]

    def start(self, noise: Tensor) -> Tensor:
        """The noise itself."""
        return noise

    def calls(self, step: Step) -> tuple[int | float, ...]:
        """One call, at the step's time."""
        return (step.t,)

    def scale(self, z: Tensor, t: int | float) -> Tensor:
        """The latent itself."""
        return z

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """The latent itself."""
        return z


def visited(controls: Sequence[Control], schedule: Callable[[], Schedule], steps: int, seed: int) -> Visits | None:
    """The times that one of the controls chooses for a run of a diffusion model; None if none of them does.

    Raises ValueError if several do.
    """
    choosing = [control for control in controls if type(control).times is not Control.times]
    if not choosing:
        return None
    if len(choosing) > 1:
        raise ValueError(
            "Only one control can choose the times of a run. Received "
            f"{' and '.join(type(control).__name__ for control in choosing)}. Leave out all but one."
        )
    times = choosing[0].times(steps, len(schedule().alpha_bar), seed)
    return None if times is None else Visits(times)

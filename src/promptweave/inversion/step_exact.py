"""DirectEdit's inversion: every step of the source is exact (Yang and Ye 2026, arXiv 2605.02417, section 3.2).

Euler's method run backwards evaluates the network at the less noisy end of a step, z' = z + h v(z, t), forwards at the
noisier one. Here the way forwards evaluates it where the way back did: with the differences of the path,
d_i = p_{i+1} - p_i,

    z_{i+1} = z_i - h v(z_i + d_i, t_i)    in every row, so that the source's row is p_{i+1} up to rounding,

and the source's attention, which targets read, is that of the inversion itself. The rounding is removed by keeping the
source's row on the path, as the authors' code does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Control
from promptweave.inversion.ddim import ddim_path
from promptweave.inversion.inverting import Inversion, Inverted, Latent, Task
from promptweave.inversion.second_order import span, steps_of
from promptweave.models.base import Model, Solver


@dataclass(frozen=True)
class StepExact(Inversion):
    """The network reads each latent where the inversion read the source's (DirectEdit)."""

    name: ClassVar[str] = "step-exact"
    about: ClassVar[str] = "The network is evaluated where the inversion evaluated it, so every step is exact."
    flow: ClassVar[bool] = True
    diffusion: ClassVar[bool] = False

    def find(self, task: Task) -> Inverted:
        task.velocities()
        return Inverted(ddim_path(task), self)

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        return (found.pin,)

    def solver(self, found: Inverted, model: Model, prompts: int) -> Solver:
        return Ahead(steps_of(model, found), found.path)


class Ahead:
    """Euler's method on the steps of a flow model, with the network evaluated a step of the path ahead."""

    def __init__(self, steps: Sequence[Step], path: Sequence[Latent]) -> None:
        self.steps, self._path = steps, path
        self._at = {step.t: step for step in steps}

    def start(self, noise: Tensor) -> Tensor:
        """The noise itself."""
        return noise

    def calls(self, step: Step) -> Sequence[int | float]:
        """The step's time."""
        return (step.t,)

    def scale(self, z: Tensor, t: int | float) -> Tensor:
        """The latents [..., images, channels, height, width], moved as the path moves in this step."""
        index = self._at[t].index
        return z + (self._path[index + 1] - self._path[index]).to(z)

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """The latent at the end of the step."""
        return z - span(self._at[t])[2] * output

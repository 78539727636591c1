"""A shared start of source and targets: SpatialReplace in the authors' code of Prompt-to-Prompt (arXiv 2208.01626)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from promptweave.core.clock import Number, Step, Window
from promptweave.core.control import Control, Hooks, NoEffect, Run
from promptweave.core.fields import Option
from promptweave.core.kept import NOTHING, Kept
from promptweave.core.targets import SOURCE, chosen


@dataclass(frozen=True)
class SharedStart(Control):
    """In the first fraction `share` of the steps, targets have the source's latents (the authors' SpatialReplace).

    Raises ValueError unless 0 <= share <= 1, NoEffect if it covers no step.
    """

    share: Annotated[
        Number, Option("Fraction of the steps that all prompts have in common.", low=0, high=1, flag="--shared-start")
    ] = 0.2
    targets: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        window = Window.of(self.share, "share of SharedStart")
        if not window.steps(run.steps):
            raise NoEffect(
                f"SharedStart needs a share that covers one of the {run.steps} steps. Received {self.share}."
            )
        return _Sharing(window, chosen(self.targets, run))

    def reads(self, run: Run) -> Kept:
        return NOTHING

    def idle(self, run: Run) -> bool:
        return not Window.of(self.share).steps(run.steps)


@dataclass
class _Sharing(Hooks):
    window: Window
    rows: tuple[int, ...]
    steps: int = 0

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        if step not in self.window:
            return z
        self.steps += 1
        z = z.clone()
        z[list(self.rows)] = z[SOURCE].clone()
        return z

    def report(self) -> dict[str, Any]:
        return {"latent_steps": self.steps}

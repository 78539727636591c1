"""Several inversions of the same image, and the one whose source comes closest to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from promptweave.core.control import NoEffect
from promptweave.core.fields import Option
from promptweave.inversion.inverting import KNOWN, CannotInvert, Inversion, Inverted, Task, found, names
from promptweave.sampling.loop import FLOW, Job, sample_jobs

LEFT_OUT = (  # that take gradients, that aim at something else, or whose source is the image whatever they do
    "auto", "null-text", "null-latent", "regularised", "infedit", "turbo-edit"
)  # fmt: skip
SAME = 0.05  # dB: differences below are not worth a slower inversion


@dataclass(frozen=True)
class Auto(Inversion):
    """The inversion that reproduces the image best, of those that need no gradients; the figures of all are kept.

    `among`: names to try, separated by "+". Inversions that the model cannot be used with are left out.
    """

    name: ClassVar[str] = "auto"
    about: ClassVar[str] = "Several inversions are tried, and the one that reproduces the image best is used."
    flow: ClassVar[bool] = True
    among: Annotated[str, Option("Names of the inversions to try, joined by +. [all without gradients]")] = ""

    def tried(self, *, flow: bool) -> list[str]:
        """The names of the inversions to try. Raises CannotInvert for one that does not exist."""
        known = names(flow=flow)
        asked = self.among.split("+") if self.among else [name for name in known if name not in LEFT_OUT]
        unknown = [name for name in asked if name not in known or name == self.name]
        if unknown:
            raise CannotInvert(
                f"among names inversions for this model: {', '.join(n for n in known if n != self.name)}. "
                f"Received {', '.join(unknown)}."
            )
        return asked

    def find(self, task: Task) -> Inverted:
        best: tuple[float, Inverted] | None = None
        figures: dict[str, int | float] = {}
        for name in self.tried(flow=task.model.scheduler == FLOW):
            try:
                made = found(KNOWN[name](), task)
                value = reproduction(task, made)
            except NoEffect:
                continue
            figures[f"PSNR of {name}"] = round(value, 2)
            if best is None or value > best[0] + SAME:
                best = value, made
        if best is None:
            raise CannotInvert("None of the inversions to try has an effect in this run. Choose one by name.")
        made = best[1]
        return Inverted(made.path, made.method, made.more, {**made.figures, **figures})

    def passes(self, steps: int) -> int:
        return steps * max(len(self.tried(flow=flow)) for flow in (False, True)) if not self.among else steps


def reproduction(task: Task, made: Inverted) -> float:
    """The PSNR in dB of the source's row of a run, to the image as the autoencoder shows it; at most 60."""
    if made.pinned:
        return 60.0
    with torch.no_grad():
        job = Job(
            [task.prompt], made.noise, task.steps, task.guidance, made.controls, task.negative, task.seed,
            inverted=made,
        )  # fmt: skip
        again = sample_jobs(task.model, [job])[0].latents[0]
        error = (task.model.to_image(again) - task.model.to_image(task.latents)).double().square().mean()
    return min(60.0, -10 * math.log10(max(float(error), 1e-12)))

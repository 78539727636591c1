"""Another unconditional text than that of the negative prompt, the same in all steps or one for each."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Hooks, NoEffect, Run, Text
from promptweave.inversion.of_source import OfSource


@dataclass(frozen=True, eq=False)
class Unconditional(OfSource):
    """Guidance points away from `texts` instead of the negative prompt: one text for all steps, or one for each.

    `pooled` [texts, dim]: their pooled vectors, for networks that take one. `rows`: the prompts; None: all.
    """

    texts: Float[Tensor, "texts tokens dim"]
    pooled: Float[Tensor, "texts pooled"] | None = None
    rows: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        if not run.guided:
            raise NoEffect(
                "This network takes guidance as an input and makes no unconditional prediction, so its text cannot be "
                "replaced. Choose another inversion."
            )
        if len(self.texts) not in (1, run.steps):
            raise ValueError(
                f"Unconditional texts are one for all steps or one for each of the run's {run.steps}. "
                f"Received {len(self.texts)}. Invert with the run's steps."
            )
        return _Replaced(self)


class _Replaced(Hooks):
    def __init__(self, control: Unconditional) -> None:
        self.control = control
        self.made: dict[int, Text] = {}

    def condition(self, step: Step, text: Text) -> Text:
        mine, number = self.control, min(step.index, len(self.control.texts) - 1)
        if number not in self.made:  # the same tensors in all steps, so that their keys are projected once
            uncond = text.uncond.clone()
            rows = slice(None) if mine.rows is None else list(mine.rows)
            uncond[rows] = mine.texts[number].to(uncond)
            pooled = text.uncond_pooled
            if pooled is not None and mine.pooled is not None:
                pooled = pooled.clone()
                pooled[rows] = mine.pooled[min(number, len(mine.pooled) - 1)].to(pooled)
            self.made = {number: text.with_uncond(uncond).with_pooled(text.pooled, pooled)}
        kept = self.made[number]
        return text.with_uncond(kept.uncond).with_pooled(text.pooled, kept.uncond_pooled)

"""Skip-Layer Guidance, SLG (Stability AI 2024, Stable Diffusion 3.5; no paper).

A prediction without some of the network's middle blocks has worse structure: anatomy, hands, coherent objects. Guidance
points away from it. With e_c the conditional prediction, and e_s the same while the transformer blocks `layers` are
skipped, so that their input is their output,

    e <- e_guided + scale (e_c - e_s)        in the steps i of n with  start n < i < stop n.

Classifier-free guidance may be on or off. Spatiotemporal Skip Guidance (Hyung et al. 2024, arXiv 2411.18664) has the
same equation for video models. Blocks are numbered in execution order: the joint blocks of Stable Diffusion 3, the
double and then the single blocks of FLUX, the transformer blocks of a UNet from the first down block on.

Differs from the authors' code: a window from 0 includes the first step, which start n < i excludes; theirs does nothing
without classifier-free guidance. diffusers' guider rounds both ends of the window down to a step and, without
classifier-free guidance, starts from e_s instead of e_c.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from promptweave.core.clock import ROUNDING, Number, Span, Step, Window
from promptweave.core.control import Control, Extra, Hooks, Latents, NoEffect, Predictions, Run
from promptweave.core.fields import Command, Option
from promptweave.core.site import Sites


@dataclass(frozen=True)
class SkipLayerGuidance(Control):
    """Guide away from a prediction with skipped blocks. The defaults suit Stable Diffusion 3.5 medium.

    `layers`: numbers of the transformer blocks to skip, which depend on the network. `window`: fraction of the steps,
    or a pair. `prompts`: the rows, None: all, the source included. Raises ValueError for blocks that the network does
    not have and for a negative scale, NoEffect if nothing would change.
    """

    command: ClassVar[Command] = Command(
        "skip-layer",
        "Improve structure by guiding away from a prediction with skipped blocks (Skip-Layer Guidance).",
        example='"a photo of a dog riding a bike" --layer 3 --layer 4 --model toybox-dit',
    )
    scale: Annotated[Number, Option("Scale of the guidance away from the prediction with skipped blocks.", low=0)] = 2.8
    layers: Annotated[
        tuple[int, ...],
        Option("Block to skip: its number, from 0, in execution order.", group="Where", flag="--layer"),
    ] = (7, 8, 9)
    window: Annotated[Span, Option("Fractions of the steps between which it acts.", low=0, high=1)] = (0.01, 0.2)
    prompts: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        blocks = list(dict.fromkeys(site.path.rpartition(".")[0] for site in run.sites))
        if not all(0 <= layer < len(blocks) for layer in self.layers):
            raise ValueError(
                f"layers must be numbers of transformer blocks, of which this network has {len(blocks)}: 0 to "
                f"{len(blocks) - 1}. Received {self.layers}. Choose some in the middle, such as ({len(blocks) // 2},)."
            )
        if self.scale < 0:
            raise ValueError(
                f"scale must be at least 0: below, it guides towards the worse prediction. Received {self.scale}."
            )
        steps = acting(Window.of(self.window, "window of SkipLayerGuidance"), run.steps)
        if not self.scale or not self.layers or not steps:
            raise NoEffect(
                f"SkipLayerGuidance needs a scale above 0, a layer, and one of the {run.steps} steps in its window. "
                f"Received scale={self.scale}, layers={self.layers}, window={self.window}."
            )
        left_out = {blocks[layer] for layer in self.layers}
        names = tuple(site.name for site in run.sites if site.path.rpartition(".")[0] in left_out)
        rows = [row - run.recorded for row in run.chosen(self.prompts)]
        return _LeavingOut(self.scale, Sites(names=names), steps, rows)


def acting(window: Window, count: int) -> frozenset[int]:
    """The steps strictly between the window's ends, and the first step if the window begins at 0."""
    first, last = window.start * count, window.end * count
    return frozenset(
        step for step in range(count) if (step > first + ROUNDING or window.start == 0) and step < last - ROUNDING
    )


@dataclass
class _LeavingOut(Hooks):
    scale: Number
    skip: Sites
    acting: frozenset[int]
    rows: list[int]  # of the predictions, which start with the first computed prompt
    steps: set[int] = field(default_factory=set[int])

    def extras(self, step: Step) -> Mapping[str, Extra]:
        return {"without": Extra(skip=self.skip)} if step.index in self.acting else {}

    def prediction(self, step: Step, made: Predictions) -> Latents:
        if not made.extra:
            return made.guided
        self.steps.add(step.index)
        moved = made.guided.clone()
        for row in self.rows:
            moved[row] += self.scale * (made.cond[row] - made.extra["without"][row])
        return moved

    def report(self) -> dict[str, Any]:
        return {"steps": len(self.steps), "layers": list(self.skip.names or ())}

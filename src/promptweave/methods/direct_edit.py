"""DirectEdit: Step-Level Accurate Inversion for Flow-Based Image Editing (Yang and Ye 2026, arXiv 2605.02417).

The attention half (equation 13); the inversion is `inversion.StepExact`, and the blend of latents by a mask (equation
12) is `LocalBlend`, with a drawn mask or with words. In the first fraction `inject` of the steps, targets use the
source's values of the image,

    softmax(q_t k_t^T / sqrt(d)) v_s,

in all joint blocks of Stable Diffusion 3 but the last, and in the single blocks of FLUX, in the conditional half.

Differs from the authors' code: only values of the image are used (theirs include the source's text); the region is
found from word maps or drawn (theirs is found by a language model and a segmentation model).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from promptweave.core.clock import Span, Step, Window
from promptweave.core.control import Control, Hooks, NoEffect, Run
from promptweave.core.fields import Option
from promptweave.core.kept import NOTHING, Kept
from promptweave.core.roles import joint_layers, joint_names
from promptweave.core.rows import Rows
from promptweave.core.site import Site
from promptweave.core.targets import SOURCE, chosen


@dataclass(frozen=True)
class DirectEdit(Control):
    """The source's values in the first steps, on a source whose every step is exact; for SD3 and FLUX (DirectEdit).

    `inject`: fraction of the steps, or a pair (3 of 30 steps in the paper). `blocks`: names or roles (`core.roles`) of
    the joint layers. Raises ValueError for models without joint attention, NoEffect for an empty window.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"joint"})
    inversion: ClassVar[str] = "step-exact"
    inject: Annotated[
        Span, Option("Fraction or range of the steps in which targets use the source's values.", low=0, high=1)
    ] = 0.1
    blocks: Annotated[
        tuple[str, ...] | None,
        Option(
            "Name or role (masked, global, vital) of joint layers to act in. [the single blocks of FLUX, else all but "
            "the last]",
            group="Advanced",
            flag="--block",
            metavar="NAME",
        ),
    ] = None
    targets: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        names = joint_names(run, "DirectEdit", "PlugAndPlay or MasaCtrl")
        rows, window = chosen(self.targets, run), Window.of(self.inject, "inject of DirectEdit")
        if not window.steps(run.steps):
            raise NoEffect(
                f"DirectEdit needs a window that covers at least one of the {run.steps} steps. Received "
                f"inject={self.inject}. Make it {1 / run.steps:.2g} at least, or raise the number of steps."
            )
        single = tuple(name for name in names if "single" in name)
        wanted = joint_layers(self.blocks, run, "DirectEdit") if self.blocks else single or names[:-1]
        return _Injecting(window, frozenset(wanted), rows)

    def reads(self, run: Run) -> Kept:
        return replace(NOTHING, joint=self.inject, values=True)

    def idle(self, run: Run) -> bool:
        return not Window.of(self.inject).steps(run.steps)


@dataclass
class _Injecting(Hooks):
    window: Window
    names: frozenset[str]
    rows: tuple[int, ...]
    steps: set[int] = field(default_factory=set[int])

    def state(self, step: Step) -> bool:
        return step in self.window

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        if site.name not in self.names or step not in self.window:
            return rows
        self.steps.add(step.index)
        image = site.of_image(rows["cond"][SOURCE].v)
        for row in self.rows:
            rows = rows.put("cond", row, v=site.with_image(rows["cond"][row].v, image))
        return rows

    def report(self) -> dict[str, Any]:
        return {"joint_steps": len(self.steps), "joint_sites": len(self.names)}

"""Plug-and-Play Diffusion Features (Tumanyan et al. 2023, arXiv 2211.12572).

The target keeps the source's layout and takes its appearance from its prompt: in the first fraction `attention` of the
steps, self-attention in the decoder's layers has the source's queries and keys (section 4.2, A_t = A_s), and in the
first fraction `features`, one residual block of the decoder adds what it adds in the source (f_t = f_s):

    softmax(q_s k_s^T / sqrt(d)) v_t,            h_t + f_s

in both halves of the guidance. For a given image, both halves take the source's features under an empty prompt, at the
latents of its inversion. For a source generated in the run, the target's unconditional half takes them from the
source's unconditional half, whose prompt is empty, and its conditional half from the conditional one. Row 0 is the
source.

Differs from the authors' code: layers are given as a fraction, so that one setting fits all networks (8 of 16 in Stable
Diffusion 1); the source is a row of the run, so that nothing is stored on disk; without guidance, the source's features
are those under its own prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from promptweave.core.clock import Number, Span, Step, Window, fraction
from promptweave.core.control import Control, Hooks, NoEffect, Run, Text
from promptweave.core.encoded import Conditioned
from promptweave.core.features import Block, Features
from promptweave.core.fields import Command, Option
from promptweave.core.rows import Branch, Layout, Rows
from promptweave.core.site import Site
from promptweave.core.targets import SOURCE, chosen


@dataclass(frozen=True)
class PlugAndPlay(Control):
    """The source's layout with the target's appearance (Plug-and-Play).

    `features` and `attention`: fractions or windows of the steps in which each is injected (0.8 and 0.5 in the paper).
    `layers`: fraction of the self-attention layers before the first that is changed. `block`: the residual block whose
    features are injected, by default the second one of the decoder's second stage. Raises ValueError for joint
    networks, unknown blocks and recordings; NoEffect if nothing would change.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"cross"})
    command: ClassVar[Command] = Command(
        "pnp",
        "Give another appearance to the source's layout (Plug-and-Play diffusion features).",
        prompts="targets",
        example='"a photo of a cat on the grass" "a sketch of a cat on the grass"',
    )
    features: Annotated[
        Span,
        Option(
            "Fraction or range of the steps in which the source's features are used.", low=0, high=1, metavar="FRACTION"
        ),
    ] = 0.8
    attention: Annotated[
        Span,
        Option(
            "Fraction or range of the steps in which the source's queries and keys are used.",
            low=0,
            high=1,
            metavar="FRACTION",
        ),
    ] = 0.5
    layers: Annotated[
        Number,
        Option("Fraction of the self-attention layers before the first that is changed.", low=0, high=1, group="Where"),
    ] = 0.5
    block: Annotated[
        str, Option("Residual block whose features are used, by stage and number.", group="Where", metavar="NAME")
    ] = "up_res_1_1"
    targets: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        rows = chosen(self.targets, run)
        sites = [site.name for site in run.sites if site.kind == "self"]
        blocks = [block.name for block in run.blocks]
        if not sites or not blocks:
            raise ValueError(
                "Plug-and-Play acts on the residual blocks and the self-attention of a UNet, and this network has "
                "joint attention. Use Consist or FlowEdit."
            )
        layers = fraction(self.layers, "layers of PlugAndPlay")
        if self.block not in blocks:
            raise ValueError(
                f"block of PlugAndPlay is one of {', '.join(blocks)} in this model. Received {self.block!r}."
            )
        windows = tuple(Window.of(getattr(self, n), f"{n} of PlugAndPlay") for n in ("features", "attention"))
        names = frozenset(sites[round(layers * len(sites)) :])
        if not windows[0].steps(run.steps) and not (names and windows[1].steps(run.steps)):
            raise NoEffect(
                f"Plug-and-Play needs features or attention that cover at least one of the {run.steps} steps. "
                f"Received features={self.features}, attention={self.attention}, layers={self.layers}."
            )
        if run.recorded:
            raise ValueError("Plug-and-Play reads the source's features. Run it without a recording.")
        empty = run.encode([""]) if run.guided and run.guidance != 1 else None
        return _Plugged(windows[0], windows[1], rows, names, self.block, empty, run.pinned)


@dataclass
class _Plugged(Hooks):
    feature_window: Window
    attention_window: Window
    rows: tuple[int, ...]
    sites: frozenset[str]
    block: str
    empty: Text | None
    given: bool
    feature_steps: set[int] = field(default_factory=set[int])
    self_steps: set[int] = field(default_factory=set[int])
    texts: Conditioned = field(default_factory=Conditioned)

    def condition(self, step: Step, text: Text) -> Text:
        """The source's negative prompt is empty."""
        empty = self.empty
        return text if empty is None else self.texts(text, lambda: _emptied(text, empty))

    def state(self, step: Step) -> bool:
        acting = step in self.attention_window
        if acting:
            self.self_steps.add(step.index)
        return acting

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        if step not in self.attention_window or site.name not in self.sites:
            return rows
        self.self_steps.add(step.index)
        for branch in rows.layout.branches:
            source = rows[self._side(branch, rows.layout)][SOURCE]
            for row in self.rows:
                rows = rows.put(branch, row, q=source.q, k=source.k)
        return rows

    def feature(self, step: Step, block: Block, features: Features) -> Features:
        if step not in self.feature_window or block.name != self.block:
            return features
        self.feature_steps.add(step.index)
        for branch in features.layout.branches:
            source = features.row(self._side(branch, features.layout), SOURCE)
            for row in self.rows:
                features = features.put(branch, row, source)
        return features

    def _side(self, branch: Branch, layout: Layout) -> Branch:
        """The half of the source's rows from which a target's half takes features and attention."""
        return layout.branches[0] if self.given else branch

    def report(self) -> dict[str, Any]:
        return {
            "feature_steps": len(self.feature_steps),
            "feature_block": self.block,
            "self_steps": len(self.self_steps),
            "self_sites": len(self.sites),
        }


def _emptied(text: Text, empty: Text) -> Text:
    """The text with another one as the source's unconditional half."""
    text = text.with_uncond(_with_first(text.uncond, empty.uncond))
    if text.uncond_pooled is None or empty.uncond_pooled is None:
        return text
    return text.with_pooled(text.pooled, _with_first(text.uncond_pooled, empty.uncond_pooled))


def _with_first(x: Tensor, first: Tensor) -> Tensor:
    return torch.cat([first.to(x), x[1:]])

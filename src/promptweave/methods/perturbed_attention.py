"""Perturbed-Attention Guidance, PAG (Ahn et al. 2024, arXiv 2403.17377).

A prediction with perturbed self-attention loses the structure of the image; guidance points away from it. With e_c the
conditional prediction, and e_p the same with the identity as attention map in chosen self-attention layers (section
4.2),

    e <- e_guided + scale (e_c - e_p).

In joint layers an image query attends to itself and the text, and text queries are unchanged, as in the published PAG
of Stable Diffusion 3 (diffusers' `PAGJointAttnProcessor2_0`).

Differs from the authors' code: nothing in UNets. In transformers, "mid" names the middle block (theirs needs its name).
diffusers' guider also replaces the text queries' maps in joint layers by the identity, and starts one step late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch

from promptweave.core.clock import Number, Span, Step, Window
from promptweave.core.control import Control, Extra, Hooks, Latents, NoEffect, Predictions, Run
from promptweave.core.fields import Command, Option
from promptweave.core.pattern import Pattern, Softmax
from promptweave.core.rows import Row, Rows
from promptweave.core.site import Site


@dataclass(frozen=True)
class PerturbedAttentionGuidance(Control):
    """Guide away from a prediction with perturbed attention. `layers`: self-attention or joint layers, by name or by
    the beginning of names: "mid", "up_self_1", "stream_single". `window`: fraction or window of the steps. `prompts`:
    the rows, None: all, the source included. Raises ValueError for unknown layers, NoEffect for a scale of 0."""

    command: ClassVar[Command] = Command(
        "pag", "Guide an image away from one without structure (PAG).", example='"a cat on the grass" --scale 2'
    )
    scale: Annotated[Number, Option("Scale of the guidance away from the perturbed prediction.", low=0)] = 3.0
    layers: Annotated[
        tuple[str, ...] | str,
        Option("Layer to perturb: its name, or the beginning of it.", group="Where", flag="--layer"),
    ] = "mid"
    window: Annotated[Span, Option("Fraction of the steps in which it acts.", low=0, high=1)] = 1.0
    prompts: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        return AwayFrom(run, perturbed, self)


def perturbed(site: Site, row: Row) -> Pattern:
    """Every pixel attends to itself alone, in a joint layer to the text too; text queries are unchanged."""
    if site.image is None:
        return Pattern.identity(row.q)
    seen = torch.ones(row.q.shape[-2], row.k.shape[-2], dtype=torch.bool, device=row.q.device)
    seen[site.image, site.image] = torch.eye(site.queries, dtype=torch.bool, device=row.q.device)

    def hidden(kernel: Softmax) -> Softmax:
        old = seen if kernel.bias is None else kernel.bias
        return replace(kernel, bias=seen & old if old.dtype == torch.bool else torch.where(seen, old, -torch.inf))

    return on_softmax(row.pattern, hidden)


def on_softmax(pattern: Pattern, change: Callable[[Softmax], Softmax]) -> Pattern:
    """A pattern with `change` applied to its softmax kernels; token maps and gates stay."""
    kernels = [(term, term.kernel) for term in pattern.terms]
    return Pattern(tuple(replace(t, kernel=change(k)) if isinstance(k, Softmax) else t for t, k in kernels))


def named_layers(sites: Sequence[Site], layers: tuple[str, ...] | str) -> set[str]:
    """The layers given by name, or by the beginning of their names up to an underscore. Raises ValueError for none."""
    able = [site.name for site in sites if site.kind != "cross"]
    joint = [site.name for site in sites if site.kind == "joint"]
    found: set[str] = set()
    for name in (layers,) if isinstance(layers, str) else layers:
        begin = joint[len(joint) // 2] if joint and name == "mid" else name
        matching = {other for other in able if f"{other}_".startswith(f"{begin}_")}
        if not matching:
            raise ValueError(
                f"layers must be names of layers, or begin them up to a '_': {', '.join(able)}. Received {name!r}."
            )
        found |= matching
    return found


class AwayFrom(Hooks):
    """e <- e_guided + scale (e_c - e_w), with e_w a prediction under the `weak` attention of rows in some layers."""

    def __init__(self, run: Run, weak: Callable[..., Pattern], control: Any):  # a control with the fields of PAG's
        scale, layers, window, name = control.scale, control.layers, control.window, type(control).__name__
        self.weak, self.scale, self.window, self.steps = weak, scale, Window.of(window, f"window of {name}"), set[int]()
        self.rows, self.first, self.layers = run.chosen(control.prompts), run.recorded, named_layers(run.sites, layers)
        if not scale > 0 or not self.layers or not self.window.steps(run.steps):
            raise NoEffect(
                f"{name} needs a scale above 0, a layer and one of the {run.steps} steps. "
                f"Received scale={scale}, layers={layers!r}, window={window}."
            )

    def extras(self, step: Step) -> Mapping[str, Extra]:
        return {"weak": Extra(edit=self._edit, state=True)} if step in self.window else {}

    def _edit(self, site: Site, rows: Rows) -> Rows:
        for prompt in self.rows if site.name in self.layers else ():
            rows = rows.put("cond", prompt, pattern=self.weak(site, rows["cond"][prompt]))
        return rows

    def prediction(self, step: Step, made: Predictions) -> Latents:
        if not made.extra:
            return made.guided
        self.steps.add(step.index)
        moved = made.guided.clone()
        for row in (row - self.first for row in self.rows):
            moved[row] += self.scale * (made.cond[row] - made.extra["weak"][row])
        return moved

    def report(self) -> dict[str, Any]:
        return {"steps": len(self.steps), "layers": sorted(self.layers)}

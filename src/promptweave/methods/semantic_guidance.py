"""SEGA: Semantic Guidance (Brack et al. 2023, arXiv 2301.12247), and LEDITS++'s masks (2311.16711).

Guidance towards or away from concepts, in addition to the prompt. With e_u the noise predicted without text and e_c
that predicted for a concept, every step adds (section 3, equations 4 to 8)

    g = sum over concepts of strength * M (e_c - e_u),        e <- e_guided + g + momentum * m,
    m <- beta m + (1 - beta) (g + momentum * m),

where M keeps the largest values of each channel, those of at least the quantile `threshold`. In the fraction `warmup`
of the steps, in which the layout forms, only momentum is built up.

With `attention`, M is the mask of LEDITS++ (section 3.3), M = M1 M2. M1 is 1 where the map of the concept's own words
is at least its quantile. This map, on the grid that localises words best, is averaged over heads and layers, summed
over tokens, smoothed by 3 x 3 cells, and enlarged by nearest neighbour. M2 is 1 where the sum over channels of |g| is
at least its quantile, and 1 everywhere while t > 800, when the prediction hardly depends on position.

Differs from the authors' code: a negative strength guides away from a concept (theirs has a switch); a concept's
strength is its only weight (theirs changes the weights of all concepts while one of them warms up longer than others).
LEDITS++ inverts with a stochastic solver and drops the prompt's own guidance; here only its mask is used, for SEGA's
guidance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Number, Step, Window
from promptweave.core.control import Control, Extra, Hooks, Latents, NoEffect, Predictions, Run, Text
from promptweave.core.fields import Command, Option
from promptweave.core.gaussian import gaussian

EARLY = 800  # above this time the image has no shapes yet
LINE = gaussian(0.5**0.5, 1)
KERNEL = torch.outer(LINE, LINE)  # LEDITS++ smooths like the code of Attend-and-Excite


@dataclass(frozen=True)
class SemanticGuidance(Control):
    """Guide towards or away from concepts, in addition to the prompt (SEGA).

    `concepts`: text -> strength; 5 is usual, a negative one guides away. `warmup`: fraction of the steps before the
    first that is guided. `threshold`: quantile of a concept's guidance above which it acts. `momentum`, `beta`: see the
    module. `attention`: act only where the concept's own words attend (LEDITS++). `targets`: the rows; None: all
    targets, or the only prompt of a run without targets. Raises ValueError for parameters out of range and for runs
    without classifier-free guidance, NoEffect if no strength or step is left.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"guided"})
    command: ClassVar[Command] = Command(
        "sega",
        "Guide an image towards or away from concepts, in addition to its prompt (semantic guidance).",
        prompts="same",
        example='"a photo of a cat on the grass" --concept "a photo of a cat wearing a hat on the grass"',
    )
    concepts: Annotated[
        Mapping[str, Number],
        Option(
            "Text to guide towards, with a strength (5 is usual; below 0 guides away).",
            group="What changes",
            flag="--concept",
            short="c",
            metavar="TEXT[=STRENGTH]",
        ),
    ]
    warmup: Annotated[Number, Option("Fraction of the steps before the first that is guided.", low=0, high=1)] = 0.2
    threshold: Annotated[
        Number, Option("Quantile of a concept's guidance above which it acts.", low=0, high=1, group="Where")
    ] = 0.9
    momentum: Annotated[Number, Option("Momentum of the guidance from step to step.", low=0, group="Advanced")] = 0.1
    beta: Annotated[Number, Option("Fraction of the momentum that a step keeps.", low=0, high=1, group="Advanced")] = (
        0.4
    )
    attention: Annotated[
        bool, Option("Act only in the region of the concept's own words (LEDITS++).", group="Where")
    ] = False
    targets: tuple[int, ...] | None = None

    def caption(self, target: int) -> str:
        return ", ".join(f"{'+' if strength > 0 else '-'} {text}" for text, strength in self.concepts.items())

    def bind(self, run: Run) -> Hooks:
        everyone = tuple(range(1, len(run.prompts))) or None
        rows = run.chosen(everyone if self.targets is None else self.targets)
        fractions = self.threshold, self.beta
        if any(not 0 <= value < 1 for value in fractions) or self.momentum < 0:
            raise ValueError(
                "SemanticGuidance takes threshold and beta from 0 to below 1 and a momentum of at least 0. "
                f"Received threshold={self.threshold}, beta={self.beta}, momentum={self.momentum}."
            )
        acting = Window.since(self.warmup, "warmup of SemanticGuidance")
        if not any(self.concepts.values()) or not acting.steps(run.steps):
            raise NoEffect(
                "SemanticGuidance needs a concept with a strength other than 0 and a step after the warm-up. Received "
                f"{dict(self.concepts)} and warmup={self.warmup} of {run.steps} steps."
            )
        if run.guided and run.guidance == 0:
            raise NoEffect(
                "SemanticGuidance with guidance 0 steers the unconditional prediction, in which no word of the prompt "
                "has a say. Received guidance=0. Raise guidance above 1."
            )
        if not run.guided or run.guidance == 1:
            raise ValueError(
                "SemanticGuidance needs an unconditional prediction, which this run does not make. Raise guidance "
                "above 1, or choose a model with classifier-free guidance."
            )
        texts = {concept: run.encode([concept]) for concept, strength in self.concepts.items() if strength}
        tokens = {concept: tuple(t for w in run.read(concept).words for t in w.tokens) for concept in texts}
        return _Guiding(self, run, rows, acting, texts, tokens)


@dataclass
class _Guiding(Hooks):
    control: SemanticGuidance
    run: Run
    rows: tuple[int, ...]
    acting: Window
    texts: Mapping[str, Text]
    tokens: Mapping[str, tuple[int, ...]]
    momentum: Latents | None = None  # after the previous steps
    before: Latents | None = None  # momentum at the start of the current step
    steps: set[int] = field(default_factory=set[int])
    areas: list[Tensor] = field(default_factory=list[Tensor])

    def extras(self, step: Step) -> Mapping[str, Extra]:
        """The prediction for each concept, with the maps of its words."""
        sites = self.run.map_sites if self.control.attention else None
        return {concept: Extra(text, controlled=False, sites=sites) for concept, text in self.texts.items()}

    def prediction(self, step: Step, made: Predictions) -> Latents:
        assert made.uncond is not None
        control, guided, moves = self.control, made.guided, torch.zeros_like(made.guided)
        for concept, output in made.extra.items():
            move = float(control.concepts[concept]) * (output - made.uncond)
            kept = largest(move.abs(), control.threshold)
            if concept in made.maps:
                heat = self._heat(concept, made.maps[concept]).to(guided)
                kept = attended(move, heat, control.threshold, step.t)
            moves = moves + torch.where(kept, move, 0)
            if step in self.acting:
                self.areas.append(kept.float().mean())
        if made.call == 0:  # all solver calls of a step share one momentum
            self.before = torch.zeros_like(moves) if self.momentum is None else self.momentum
        assert self.before is not None
        moves = moves + control.momentum * self.before
        if made.call == 0:
            self.momentum = control.beta * self.before + (1 - control.beta) * moves
        if step not in self.acting:
            return guided
        self.steps.add(step.index)
        acted = torch.zeros(len(guided), 1, 1, 1, 1, dtype=torch.bool, device=guided.device)
        for row in self.rows:
            acted[row - self.run.recorded] = True
        return torch.where(acted, guided + moves, guided)

    def _heat(self, concept: str, maps: Maps) -> Float[Tensor, "prompts images rows columns"]:
        """The map of the concept's words."""
        rows = range(self.run.recorded, len(self.run.prompts))
        return torch.stack([maps.mean(row)[..., list(self.tokens[concept])].sum(-1) for row in rows])

    def report(self) -> dict[str, Any]:
        """`area`: the mean fraction of the latent's values that concepts changed."""
        return {
            "steps": len(self.steps),
            "area": sum(round(float(area), 4) for area in self.areas) / max(1, len(self.areas)),
        }


@cache  # not to copy it to the device in every step
def _kernel(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "1 1 3 3"]:
    return KERNEL.to(device, dtype)[None, None]


def largest(x: Float[Tensor, "*channels height width"], quantile: Number) -> Bool[Tensor, "*channels height width"]:
    """Where a value is at least the quantile of its channel (SEGA, equation 6)."""
    flat = x.flatten(-2).to(torch.promote_types(x.dtype, torch.float32))
    return x >= flat.quantile(quantile, -1)[..., None, None].to(x)


def attended(
    move: Latents, heat: Float[Tensor, "prompts images rows columns"], quantile: Number, t: int | float
) -> Bool[Tensor, "prompts images 1 height width"]:
    """M1 M2 for a concept's guidance and its words' maps, at time t (LEDITS++, section 3.3)."""
    smooth = F.conv2d(
        F.pad(heat.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="reflect"), _kernel(heat.device, heat.dtype)
    )
    looked = F.interpolate(largest(smooth, quantile).to(heat), size=move.shape[-2:])  # to the nearest cell
    looked = looked.view(*heat.shape[:2], 1, *move.shape[-2:]) > 0
    return looked if t > EARLY else looked & largest(move.abs().sum(2, keepdim=True), quantile)

"""SEGA: Semantic Guidance (Brack et al. 2023, arXiv 2301.12247), and LEDITS++'s masks (2311.16711).

Concepts are added to a picture, or taken away, beside its prompt. With e the predicted noise, u without text and c with
the concept's, every step goes further along (section 3, equations 4 to 8)

    g = sum over concepts of share * strength * M (e_c - e_u),        e <- e_guided + g + momentum * m,
    m <- beta m + (1 - beta) (g + momentum * m),

where M keeps the largest values of each channel, those above the quantile `threshold`. The share `warmup` of the steps,
in which the layout is made, builds up momentum alone. With `attention`, M also leaves out where the concept's own words
do not look (LEDITS++, section 3.3: maps above their quantile, on the grid where words are localised best).

Differs from the authors' code: strengths below 0 lead away; several concepts share evenly, there by how far each
prediction is from the guidance, which can come to nothing; in LEDITS++ the quantile is of the sum over channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Number, Step, Window
from promptweave.core.control import Control, Hooks, NoEffect, Probe, Run, Text
from promptweave.core.options import Command, Option

Latents = Float[Tensor, "prompts images channels height width"]


@dataclass(frozen=True)
class SemanticGuidance(Control):
    """`concepts`: text -> strength (5 is usual, below 0 leads away). The other parameters: see the module.

    `targets`: the rows it acts on; None: all targets, or the one prompt of a run without.
    """

    command: ClassVar[Command] = Command(
        "sega",
        "Lead an image towards concepts or away from them, beside its prompt (semantic guidance).",
        prompts="same",
        example='"a photo of a cat on the grass" --concept "a photo of a cat wearing a hat on the grass"',
    )
    concepts: Annotated[
        Mapping[str, Number],
        Option(
            "Text to lead to with a strength (5 is usual), or away from with one below 0.",
            group="What changes",
            flag="--concept",
            short="c",
            metavar="TEXT[=STRENGTH]",
        ),
    ]
    warmup: Annotated[Number, Option("Fraction of the steps before the first that is guided.", low=0, high=1)] = 0.2
    threshold: Annotated[
        Number, Option("Quantile of a concept's change above which it acts.", low=0, high=1, group="Where")
    ] = 0.9
    momentum: Annotated[Number, Option("Momentum of the guidance from step to step.", low=0, group="Advanced")] = 0.1
    beta: Annotated[Number, Option("Fraction of the momentum that a step keeps.", low=0, high=1, group="Advanced")] = (
        0.4
    )
    attention: Annotated[bool, Option("Act only where the concept's own words look (LEDITS++).", group="Where")] = False
    targets: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        everyone = tuple(range(1, len(run.prompts))) or None
        rows = run.chosen(everyone if self.targets is None else self.targets)
        shares = self.threshold, self.beta
        if any(not 0 <= share < 1 for share in shares) or self.momentum < 0:
            raise ValueError(
                "SemanticGuidance takes threshold and beta from 0 to below 1 and a momentum of at least 0. "
                f"Received threshold={self.threshold}, beta={self.beta}, momentum={self.momentum}."
            )
        acting = Window(Window.of(self.warmup).end, 1.0)
        if not any(self.concepts.values()) or not acting.steps(run.steps):
            raise NoEffect(
                "SemanticGuidance needs a concept with a strength other than 0 and a step after the warm-up. Received "
                f"{dict(self.concepts)} and warmup={self.warmup} of {run.steps} steps."
            )
        if not run.guided or run.guidance == 1:
            raise ValueError(
                "SemanticGuidance needs a prediction without text, which this run does not make. Raise guidance above "
                "1, or choose a model with classifier-free guidance."
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
    seen: dict[str, tuple[Latents, Latents | None]] = field(default_factory=dict[str, Any])
    momentum: Latents | None = None
    areas: list[float] = field(default_factory=list[float])

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        """What the network predicts under each concept."""
        for concept, text in self.texts.items():
            sites = self.run.map_sites if self.control.attention else None
            output, maps = probe.predict(z, text, sites)
            heat = None
            if maps is not None:
                found = torch.stack([maps.mean(row)[..., list(self.tokens[concept])].sum(-1) for row in self._computed])
                heat = F.interpolate(found, size=z.shape[-2:], mode="bilinear")
            self.seen[concept] = output, heat
        return z

    def prediction(self, step: Step, guided: Latents, uncond: Latents | None) -> Latents:
        assert uncond is not None
        control, moves = self.control, torch.zeros_like(guided)
        for concept, (output, heat) in self.seen.items():
            move = float(control.concepts[concept]) * (output.to(guided) - uncond)
            kept = _largest(move.abs(), control.threshold)
            if heat is not None:
                kept = kept & _largest(heat[:, :, None].to(guided), control.threshold)
            moves = moves + torch.where(kept, move, 0) / len(self.seen)
            if step in self.acting:
                self.areas.append(round(float(kept.float().mean()), 4))
        before = torch.zeros_like(moves) if self.momentum is None else self.momentum
        moves = moves + control.momentum * before
        self.momentum = control.beta * before + (1 - control.beta) * moves
        if step not in self.acting:
            return guided
        acted = torch.zeros(len(guided), 1, 1, 1, 1, dtype=torch.bool, device=guided.device)
        acted[[row - self.run.recorded for row in self.rows]] = True
        return torch.where(acted, guided + moves, guided)

    @property
    def _computed(self) -> range:
        return range(self.run.recorded, len(self.run.prompts))

    def report(self) -> dict[str, Any]:
        """`area`: the mean share of the latent's values that concepts moved."""
        return {"steps": len(self.areas) // max(1, len(self.texts)), "area": sum(self.areas) / max(1, len(self.areas))}


def _largest(x: Latents, share: Number) -> Tensor:
    """Where a value is at least the quantile of its channel."""
    flat = x.flatten(-2).to(torch.promote_types(x.dtype, torch.float32))
    return x >= flat.quantile(share, -1)[..., None, None].to(x)

"""MasaCtrl: Tuning-Free Mutual Self-Attention Control (Cao et al. 2023, arXiv 2304.08465).

For edits that change a pose or layout and keep the appearance: the target keeps its own queries, which determine the
layout, and takes its appearance from the source. After the fraction `start` of the steps, in the self-attention layers
after the fraction `layers` of them (those of the decoder), a target attends to the source's keys and values, in each
half of the guidance to those of the same half (section 3.2):

    softmax(q_t k_s^T / sqrt(d)) v_s

The source is row 0 and stays as it is. `union` keeps the target's own keys and values beside the source's. With
`words`, the target's foreground attends to the source's foreground, and background to background (section 3.3); the
foreground is where the words' map of the steps so far, scaled to [0, 1], exceeds `threshold`. `masks` are drawn
foregrounds of the source and of the target, used instead of maps.

Differs from the authors' code: layers are given as a fraction, so that one setting fits all networks (10 of 16 in
Stable Diffusion 1); a query that finds no keys on its side attends to all keys; maps are those of all steps so far, on
the grid that localises words best (theirs are of the 16 x 16 layers that the same step has already passed). Stable
Diffusion 3.5 medium has some self-attention layers, but is refused like the other joint networks, as most of its
attention is joint.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Number, Step, Window, fraction
from promptweave.core.control import Control, Hooks, NoEffect, Run
from promptweave.core.fields import Command, Option
from promptweave.core.mask import check_covers, on_grid
from promptweave.core.pattern import Dense, Pattern, Term
from promptweave.core.precision import precision
from promptweave.core.rows import Rows
from promptweave.core.site import Site
from promptweave.core.targets import SOURCE, chosen
from promptweave.words.counterparts import marked, none_of

TARGET = 1  # index of the target's mask
Drawn = tuple[tuple[float, ...], ...]  # core.mask.Mask, as the command line reads it without importing torch
Region = Bool[Tensor, "images height width"]


@dataclass(frozen=True)
class MasaCtrl(Control):
    """The source's appearance in the target's layout (MasaCtrl).

    `start`: fraction of the steps before the first that is changed (4 of 50 in the paper). `layers`: fraction of the
    self-attention layers before the first that is changed. `union`: keep the target's own keys and values too. `words`
    of the foreground, whose maps have the level `threshold`, or drawn `masks` (source, target), [height, width] of
    zeros and ones, keep foreground and background apart. Raises ValueError for joint networks, for recordings, and for
    more than one of union, words and masks; NoEffect if nothing would change.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"cross"})
    command: ClassVar[Command] = Command(
        "masactrl",
        "Give the source's appearance to another pose or layout (MasaCtrl).",
        prompts="targets",
        example='"a dog standing on the grass" "a dog jumping on the grass"',
    )
    start: Annotated[Number, Option("Fraction of the steps before the first that is changed.", low=0, high=1)] = 0.08
    layers: Annotated[
        Number, Option("Fraction of the self-attention layers before the first that is changed.", low=0, high=1)
    ] = 0.625
    union: Annotated[bool, Option("Keep the target's own keys and values beside the source's.")] = False
    words: Annotated[
        tuple[str, ...] | str,
        Option(
            "Word of the foreground, to keep it apart from the background.",
            group="Where",
            flag="--word",
            short="w",
            metavar="WORD",
        ),
    ] = ()
    threshold: Annotated[
        Number,
        Option(
            "Level of the words' maps, scaled to [0, 1], above which a pixel is foreground.",
            low=0,
            high=1,
            group="Where",
        ),
    ] = 0.1
    masks: Annotated[
        tuple[Drawn, Drawn] | None,
        Option(
            "Drawn foreground (white, or 1) of the source and of the target, instead of words.",
            low=0,
            high=1,
            group="Where",
            metavar="FILE",
            mask=True,
        ),
    ] = None
    targets: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        rows, window = chosen(self.targets, run), Window.since(self.start, "start of MasaCtrl")
        sites = [site for site in run.sites if site.kind == "self"]
        if not sites or any(site.kind == "joint" for site in run.sites):
            raise ValueError(
                "MasaCtrl acts on self-attention, and in this network attention is joint. Use Consist or FlowEdit."
            )
        layers = fraction(self.layers, "layers of MasaCtrl")
        fraction(self.threshold, "threshold of MasaCtrl", below=True)
        changed = frozenset(site.name for site in sites[round(layers * len(sites)) :])
        if not changed or not window.steps(run.steps):
            raise NoEffect(
                f"MasaCtrl needs one of the {len(sites)} layers and one of the {run.steps} steps. "
                f"Received layers={self.layers} and start={self.start}."
            )
        if run.recorded:
            raise ValueError("MasaCtrl reads both halves of the source's guidance. Run it without a recording.")
        words = (self.words,) if isinstance(self.words, str) else tuple(self.words)
        if sum(map(bool, (words, self.union, self.masks))) > 1:
            raise ValueError(
                "MasaCtrl takes only one of union, words and masks. Received several. Leave out all but one."
            )
        drawn: dict[int, Region] | None = None
        if self.masks is not None:
            drawn = {row: drawn_region(mask, run) for row, mask in zip((SOURCE, TARGET), self.masks, strict=True)}
        return _Mutual(self, rows, window, changed, self._maps(run, rows, words) if words else None, drawn)

    @staticmethod
    def _maps(run: Run, rows: tuple[int, ...], words: tuple[str, ...]) -> Maps:
        """The accumulator of the words' maps: in a target one channel, in the source one channel for each target."""
        marks = marked(words, run, rows)
        weights = {SOURCE: torch.zeros(run.tokens, len(rows)), **{row: torch.zeros(run.tokens, 1) for row in rows}}
        for column, (row, sides) in enumerate(marks.items()):
            if not sides["source"] and not sides["target"]:
                raise ValueError(f"MasaCtrl finds the foreground by words. {none_of(words, run, row)}")
            weights[SOURCE][list(sides["source"]), column] = 1
            weights[row][list(sides["target"]), 0] = 1
        flat = {prompt: found.to(run.device) for prompt, found in weights.items()}
        return Maps(run.map_sites, (SOURCE, *rows), flat, own=True)


def foreground(heat: Float[Tensor, "images height width"], threshold: Number) -> Region:
    """Where a map, scaled to [0, 1], is above the threshold; everywhere if it is the same everywhere."""
    low, high = heat.amin((-2, -1), keepdim=True), heat.amax((-2, -1), keepdim=True)
    return ((heat - low) / (high - low).clamp_min(1e-12) > threshold) | (high == low)


def drawn_region(mask: Drawn, run: Run) -> Region:
    """A drawn foreground, for all images of a run. Raises NoEffect if foreground or background is empty."""
    check_covers(mask, run.latent_grid, "MasaCtrl")
    found = on_grid(mask, run.latent_grid)[None]
    if found.all():
        raise NoEffect("A mask of MasaCtrl needs a foreground and a background. Received one that is all the same.")
    return found.to(run.device).expand(run.images, -1, -1)


def kept_apart(
    q: Float[Tensor, "images heads queries dim"],
    k: Float[Tensor, "images heads keys dim"],
    asking: Bool[Tensor, "images queries"],
    asked: Bool[Tensor, "images keys"],
) -> Float[Tensor, "images heads queries keys"]:
    """Attention of foreground to foreground and background to background; `asking`, `asked`: the foregrounds."""
    allowed = asking[:, :, None] == asked[:, None, :]
    allowed = allowed | ~allowed.any(-1, keepdim=True)
    precise = precision(q.dtype)
    scores = q.to(precise) @ k.to(precise).transpose(-1, -2) * q.shape[-1] ** -0.5
    return scores.masked_fill(~allowed[:, None], float("-inf")).softmax(-1).to(q.dtype)


@dataclass
class _Mutual(Hooks):
    control: MasaCtrl
    rows: tuple[int, ...]
    window: Window
    changed: frozenset[str]
    maps: Maps | None
    drawn: dict[int, Region] | None
    steps: set[int] = field(default_factory=set[int])

    def state(self, step: Step) -> Hashable:
        acting = step in self.window
        if acting:
            self.steps.add(step.index)
        return acting, self.maps is not None and bool(self.maps.counts)

    def watches(self, step: Step, site: Site) -> bool:
        return self.maps is not None and self.maps.wants(step, site)

    def observe(self, step: Step, site: Site, rows: Rows) -> None:
        if self.maps is not None:
            self.maps.add(step, site, rows)

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        if step not in self.window or site.name not in self.changed:
            return rows
        self.steps.add(step.index)
        for branch in rows.layout.branches:
            source = rows[branch][SOURCE]
            for row in self.rows:
                own = rows[branch][row]
                if self.control.union:
                    k, v = (torch.cat(pair, -2) for pair in ((source.k, own.k), (source.v, own.v)))
                    rows = rows.put(branch, row, k=k, v=v)
                    continue
                pattern = None
                if self.drawn is not None or (self.maps is not None and self.maps.keys(row)):
                    asking, asked = (self._region(prompt, row, site) for prompt in (row, SOURCE))
                    pattern = Pattern((Term(Dense(kept_apart(own.q, source.k, asking, asked))),))
                rows = rows.put(branch, row, pattern=pattern, k=source.k, v=source.v)
        return rows

    def _region(self, prompt: int, row: int, site: Site) -> Bool[Tensor, "images pixels"]:
        """The foreground of the source or of a target, by the words that count for target `row`."""
        if self.drawn is not None:
            drawn = self.drawn[SOURCE if prompt == SOURCE else TARGET][:, None].float()
            return F.adaptive_avg_pool2d(drawn, site.grid)[:, 0].flatten(1) > 0.5
        assert self.maps is not None
        column = self.rows.index(row) if prompt == SOURCE else 0
        found = foreground(self.maps.total(prompt)[..., column], self.control.threshold)
        return F.interpolate(found[:, None].float(), size=site.grid)[:, 0].flatten(1) > 0.5

    def report(self) -> dict[str, Any]:
        return {"self_steps": len(self.steps), "self_sites": len(self.changed)}

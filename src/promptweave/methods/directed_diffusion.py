"""Directed Diffusion: Direct Control of Object Placement (Ma et al. 2023, arXiv 2302.13153, version 1).

In the first N steps the cross-attention A [queries, keys] of a region's tokens is strengthened inside its box and
weakened outside, without normalising it again. The tokens J are those of the region's words and the first `trailing`
tokens after the prompt, which carry much of the layout. At step i, with c = `strength` and l_i falling from 9 to 0,

    A'[p, j] = c l_i A[p, j] + G[p] inside the box,   `weaken` A[p, j] outside,   j in J;   A' = A for other tokens,

with G a Gaussian over the box. As patterns, with g [keys] marking tokens with the same boxes and f_g their factor,

    A' = A diag(1 - J) + sum over g of diag(f_g) A diag(g) + G_g g^T.

Differs from the authors' code: tokens of no region keep their maps (theirs are weakened too, the start token among
them, so that the edited layers return little but the regions; `reference_compat` does the same); a trailing token is
strengthened in every box (theirs loses what lies outside the rows and columns of the last box); trailing tokens begin
with the end token (theirs are found by counting spaces); words may have several tokens. Version 3 of the paper replaced
this method by an optimisation of the latents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Number, Step, Window
from promptweave.core.control import Control, Hooks, NoEffect, Run
from promptweave.core.fields import Command, Option
from promptweave.core.pattern import Outer, Pattern, Term
from promptweave.core.rows import Rows
from promptweave.core.site import Site
from promptweave.words import Words

Box = tuple[Number, Number, Number, Number]  # left, top, right, bottom; fractions of the image
Grid = tuple[int, int]
LEVELS = (9.0, 0.0)  # l_i at the first and at the last step


def bump(height: int, width: int) -> Float[Tensor, "height width"]:
    """G: the density of a normal distribution over a box in cells, with half the box's sides as deviations."""
    down, across = (torch.linspace(0, side, side, dtype=torch.float64) for side in (height, width))
    squares = ((down - height // 2) / (height / 2))[:, None] ** 2 + ((across - width // 2) / (width / 2)) ** 2
    return torch.exp(-squares / 2) / (2 * math.pi * (height / 2) * (width / 2))


def cells(box: Box, grid: Grid) -> tuple[slice, slice] | None:
    """The rows and columns of a box on a grid; None if it contains no cell."""
    left, top, right, bottom = box
    rows = slice(int(grid[0] * top), int(grid[0] * bottom))
    columns = slice(int(grid[1] * left), int(grid[1] * right))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def factors(
    boxes: Sequence[Box], grid: Grid, strength: Number, weaken: Number, *, reference_compat: bool = False
) -> tuple[Float[Tensor, "height width"], Float[Tensor, "height width"]] | None:
    """f and G of tokens with these boxes; None if no box contains a cell."""
    scale, added = torch.ones(grid, dtype=torch.float64), torch.zeros(grid, dtype=torch.float64)
    inside = torch.zeros(grid, dtype=torch.bool)
    found = [place for place in (cells(box, grid) for box in boxes) if place is not None]
    for rows, columns in found:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if reference_compat:  # each box acts on the result of the last one and cuts its mask
            scale[rows, columns] *= strength
            added[rows, columns] *= strength
            cross = torch.zeros_like(inside)
            cross[rows], cross[:, columns] = True, True
            inside[rows, columns] = True
            inside &= cross
        else:
            scale[rows, columns] = strength
            inside[rows, columns] = True
        added[rows, columns] += bump(height, width)
    kept = torch.ones_like(scale).masked_fill(~inside, float(weaken))
    return (scale * kept, added * kept) if found else None


@dataclass(frozen=True)
class DirectedDiffusion(Control):
    """Place things in boxes (Directed Diffusion).

    `regions`: word -> (left, top, right, bottom), fractions of the image from its top left corner. `trailing`: number
    of tokens after the prompt that are placed with the words. `share`: fraction or window of the steps in which maps
    are edited. `strength`: the factor c inside a box; `weaken`: the factor outside. `prompts`: the rows, None: all.
    Raises ValueError for models without cross-attention or parameters out of range, NoEffect if nothing would change.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"cross"})
    command: ClassVar[Command] = Command(
        "place",
        "Put things where you want them (Directed Diffusion).",
        example='"a photo of a dog on the grass" --region dog=0.5,0.3,1,1',
    )
    regions: Annotated[
        Mapping[str, Box] | tuple[tuple[str, Box], ...],
        Option(
            "Box of a word, in fractions of the image.",
            low=0,
            high=1,
            group="Where",
            flag="--region",
            metavar="WORD=LEFT,TOP,RIGHT,BOTTOM",
        ),
    ]
    trailing: Annotated[int, Option("Number of tokens after the prompt that are placed with the words.", low=0)] = 10
    share: Annotated[
        Number | tuple[Number, Number],
        Option("Fraction or range of the steps in which the maps are edited.", low=0, high=1),
    ] = 0.5
    strength: Annotated[Number, Option("Strength of a word's map inside its box.", low=0)] = 0.7
    weaken: Annotated[Number, Option("Factor on a word's map outside its box.", low=0, high=1)] = 0.01
    prompts: tuple[int, ...] | None = None
    reference_compat: Annotated[
        bool, Option("Weaken all other tokens too, as the authors' code does.", group="Advanced")
    ] = False

    def caption(self, target: int) -> str:
        if self.prompts is not None and target not in self.prompts:
            return ""
        return ", ".join(f"{word} in its box" for word in dict(self.regions))

    def bind(self, run: Run) -> Hooks:
        window = Window.of(self.share, "share of DirectedDiffusion")
        regions = self._checked(run, window)
        grids = {site.grid for site in run.sites if site.kind == "cross"}
        if not grids:
            raise ValueError(
                "DirectedDiffusion edits cross-attention, a softmax over the text alone. This model has joint layers: "
                "attention to a word competes with attention to all pixels. Choose Stable Diffusion 1, 2 or XL."
            )
        for name, box in regions:
            if all(cells(box, grid) is None for grid in grids):
                raise NoEffect(
                    f"A box must contain a cell of a layer's map. Received {box} for {name!r}, and the finest map is "
                    f"{max(grids)[0]} x {max(grids)[1]}. Make it larger."
                )
        groups = {row: self._groups(run.words[row], regions) for row in run.chosen(self.prompts)}
        vectors = {
            row: [
                (boxes, _marks(tokens, run.words[row].limit).to(run.device, run.dtype))
                for boxes, tokens in found.items()
            ]
            for row, found in groups.items()
        }
        return _Placing(self, window, vectors)

    def _checked(self, run: Run, window: Window) -> tuple[tuple[str, Box], ...]:
        given: Any = self.regions.items() if isinstance(self.regions, Mapping) else self.regions
        regions = tuple((name, box) for name, box in given)
        for name, (left, top, right, bottom) in regions:
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(
                    "A box is left, top, right, bottom in fractions of the image, 0 <= left < right <= 1 and "
                    f"0 <= top < bottom <= 1. Received {(left, top, right, bottom)} for {name!r}."
                )
        if len({name for name, _ in regions}) < len(regions):
            raise ValueError(f"A word has one box. Received {', '.join(name for name, _ in regions)}.")
        if self.trailing < 0 or not self.strength > 0 or not 0 <= self.weaken <= 1:
            raise ValueError(
                "DirectedDiffusion takes trailing of at least 0, a strength above 0 and weaken from 0 to 1. "
                f"Received trailing={self.trailing}, strength={self.strength}, weaken={self.weaken}."
            )
        if not regions or not window.steps(run.steps):
            raise NoEffect(
                "DirectedDiffusion needs a region and a share that covers one of the "
                f"{run.steps} steps. Received {len(regions)} regions and share={self.share}."
            )
        return regions

    def _groups(self, words: Words, regions: Sequence[tuple[str, Box]]) -> dict[tuple[Box, ...], list[int]]:
        """Tokens by their boxes; tokens with the same boxes form a group."""
        behind = [words.places[-1], *words.pads][: self.trailing]
        if self.reference_compat:  # that code counts tokens by spaces
            first = len(words.prompt.split()) + 1
            behind = list(range(first, min(first + self.trailing, words.limit)))
        owners: dict[int, tuple[Box, ...]] = {}
        for name, box in regions:
            for token in dict.fromkeys((*words.find(name), *behind)):
                owners[token] = (*owners.get(token, ()), box)
        groups: dict[tuple[Box, ...], list[int]] = {}
        for token, boxes in owners.items():
            groups.setdefault(boxes, []).append(token)
        return groups


def _marks(tokens: Sequence[int], limit: int) -> Float[Tensor, "keys"]:
    marks = torch.zeros(limit)
    marks[list(tokens)] = 1
    return marks


@dataclass
class _Placing(Hooks):
    control: DirectedDiffusion
    window: Window
    groups: dict[int, list[tuple[tuple[Box, ...], Tensor]]]
    steps: set[int] = field(default_factory=set[int])
    sites: set[str] = field(default_factory=set[str])
    made: dict[Any, Any] = field(default_factory=dict[Any, Any])  # f and G of all acting steps, on the device

    def state(self, step: Step) -> int:
        return step.index if step in self.window else -1

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        if site.kind != "cross" or step not in self.window:
            return rows
        for row, groups in self.groups.items():
            rows = rows.put("cond", row, pattern=self._edited(rows["cond"][row].pattern, groups, step, site.grid))
        self.steps.add(step.index)
        self.sites.add(site.name)
        return rows

    def _edited(
        self, pattern: Pattern, groups: Sequence[tuple[tuple[Box, ...], Tensor]], step: Step, grid: Grid
    ) -> Pattern:
        """A'. Tokens whose boxes contain no cell of the grid keep their maps."""
        control, kernel = self.control, pattern.terms[0].kernel
        at = step.index - self.window.steps(step.count).start
        rest = torch.full_like(groups[0][1], control.weaken if control.reference_compat else 1.0)
        edits: list[Pattern] = []
        for boxes, tokens in groups:
            found = self._factors(boxes, grid, step.count, kernel.device, kernel.dtype)
            if found is None:
                continue
            scale, added = (x[at] for x in found)
            rest = rest * (1 - tokens)
            edits += [(pattern * tokens).gated(scale), Pattern((Term(Outer(added, tokens.to(kernel.dtype))),))]
        return sum(edits, pattern * rest) if edits else pattern

    def _factors(
        self, boxes: tuple[Box, ...], grid: Grid, count: int, device: torch.device, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "steps queries"], Float[Tensor, "steps queries"]] | None:
        """f and G in each of the acting steps; None if no box contains a cell."""
        key, control = (boxes, grid, device, dtype), self.control
        if key not in self.made:
            levels = map(float, torch.linspace(*LEVELS, len(self.window.steps(count)), dtype=torch.float64))
            compat = control.reference_compat
            made = [factors(boxes, grid, control.strength * x, control.weaken, reference_compat=compat) for x in levels]
            known = [pair for pair in made if pair is not None]  # the boxes, not the levels, decide
            sides = zip(*known, strict=True)
            self.made[key] = tuple(torch.stack(side).flatten(1).to(device, dtype) for side in sides) or None
        return self.made[key]

    def report(self) -> dict[str, Any]:
        return {"cross_steps": len(self.steps), "cross_sites": len(self.sites)}

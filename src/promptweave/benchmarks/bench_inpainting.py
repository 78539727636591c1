"""Inpainting beside Prompt-to-Prompt on images that the world drew: what a mask loses, and what it keeps.

Each pair is a drawn scene and the same with one change: a thing gets a colour, which is all that should change in it,
or another thing takes its place. The outlines of both, and the image as it should become, are known exactly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from promptweave.benchmarks.judging import oracle
from promptweave.benchmarks.measure_given import recipe, swap
from promptweave.editing.edit import run, run_many
from promptweave.editing.found_masks import DiffEditMask
from promptweave.editing.masks import rows as rows_of
from promptweave.editing.masks import with_controls
from promptweave.editing.recipe import Recipe
from promptweave.evaluate.metrics import psnr
from promptweave.methods import Inpaint, LocalBlend, Refine, Replace
from promptweave.models.base import Model
from promptweave.view.sheet import sheet
from promptweave.world.caption import caption
from promptweave.world.counterfactuals import MARGIN, grown
from promptweave.world.render import render
from promptweave.world.scene import COLOURS, TINTABLE, Scene, random_scene

COLUMNS = ("change", "how", "success", "PSNR outside", "outline", "PSNR inside", "pairs")
MASKED = ("inpainting: its outline", "inpainting: a box", "inpainting: DiffEdit's mask")
STEERED = ("no control", "Prompt-to-Prompt", "Prompt-to-Prompt, local blend")
Change = Literal["another colour", "another thing"]


@dataclass(frozen=True)
class Row:
    """One edit of a drawn image. `success`: the oracle sees the change. `outside`: PSNR in dB to the image, outside
    both outlines. `outline`: intersection over union of the thing's region with its drawn outline. `inside`: PSNR in it
    to the image as it should become."""

    change: Change
    how: str
    pair: int
    success: bool
    outside: float
    outline: float
    inside: float


@dataclass(frozen=True, eq=False)
class Shown:
    """A pair: captions, the drawn image, the mask of its outline, and the images of the edits by name."""

    pair: int
    prompts: tuple[str, str]
    drawn: np.ndarray
    mask: np.ndarray
    images: dict[str, np.ndarray]


@dataclass(frozen=True)
class Pair:
    """Two drawn scenes that differ in thing `index`; `gone`: a noun that must no longer be seen."""

    change: Change
    scene: Scene
    other: Scene
    index: int
    gone: str | None

    @classmethod
    def drawn(cls, change: Change, rng: random.Random) -> Pair:
        """A pair of this kind."""
        if change == "another thing":
            scene, other, old, _ = swap(rng)
            return cls(change, scene, other, [thing.noun for thing in scene.things].index(old), old)
        while True:
            scene = replace(random_scene(rng), style="photo")
            known = [place for place, thing in enumerate(scene.things) if thing.noun in TINTABLE]
            if known:
                index = rng.choice(known)
                scene = scene.with_(index, colour=None)
                return cls(change, scene, scene.with_(index, colour=rng.choice(COLOURS)), index, None)

    @property
    def outlines(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the thing is before and after, bool [height, width]."""
        before, after = (np.asarray(render(scene)[1][self.index]) for scene in (self.scene, self.other))
        return before, after

    def success(self, sight: Any) -> bool:
        """Whether the oracle sees the change."""
        thing = self.other.things[self.index]
        return sight.has(thing.noun, thing.colour) and (self.gone is None or not sight.has(self.gone))


def boxed(mask: np.ndarray) -> np.ndarray:
    """The smallest box around a mask."""
    made = np.zeros_like(mask)
    (lines,), (columns,) = np.nonzero(mask.any(1)), np.nonzero(mask.any(0))
    made[lines[0] : lines[-1] + 1, columns[0] : columns[-1] + 1] = True
    return made


def bench_inpainting(
    model: Model, changes: Sequence[Change], *, count: int, steps: int, guidance: int | float, seed: int = 5000,
    first: int = 0, progress: Callable[[], Any] | None = None,
) -> Iterator[tuple[list[Row], Shown]]:  # fmt: skip
    """The rows of pairs `first` to `count` - 1 of each kind, as they are made."""
    for change in changes:
        for number in range(first, count):
            pair = Pair.drawn(change, random.Random(f"{change} {seed} {number}"))
            yield _judged(model, pair, number, steps, guidance, seed + number)
            if progress:
                progress()


def _judged(
    model: Model, pair: Pair, number: int, steps: int, guidance: int | float, seed: int
) -> tuple[list[Row], Shown]:
    target, (before, after) = caption(pair.other), pair.outlines
    drawn, wanted = render(pair.scene)[0], render(pair.other)[0]

    def made(targets: int, *controls: Any) -> Recipe:
        return recipe(model, pair.scene, (target,) * targets, steps, guidance, controls=controls, seed=seed)

    outline = grown(before | after, MARGIN)
    masks = [rows_of(outline), rows_of(boxed(outline)), DiffEditMask().find(made(1), model)]
    inpainted = run_many(
        [with_controls(made(1), [Inpaint(mask=mask)], model) for mask in masks], model
    )  # fmt: skip
    injection = Refine if pair.gone is None else Replace
    word = pair.other.things[pair.index].noun
    steered = run(made(3, injection(targets=(2, 3)), LocalBlend(word, targets=(3,))), model)
    found = [*(one.sample.pictures[1, 0] for one in inpainted), *steered.sample.pictures[1:, 0]]
    images: dict[str, np.ndarray] = dict(zip((*MASKED, *STEERED), found, strict=True))
    rows = [
        Row(
            pair.change, how, number, pair.success(sight), psnr(drawn, image, ~(before | after)),
            _overlap(sight.regions[word], after), psnr(wanted, image, after),
        )
        for (how, image), sight in zip(images.items(), oracle().look(np.stack(found)), strict=True)
    ]  # fmt: skip
    return rows, Shown(number, (caption(pair.scene), target), drawn, outline, images)


def _overlap(seen: np.ndarray, drawn: np.ndarray) -> float:
    return float((seen & drawn).sum() / max(1, (seen | drawn).sum()))


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The means of each change and way, as a table."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.change, row.how), []).append(row)
    return [
        (
            *names, f"{np.mean([r.success for r in each]):.0%}", f"{np.mean([r.outside for r in each]):.1f}",
            f"{np.mean([r.outline for r in each]):.2f}", f"{np.mean([r.inside for r in each]):.1f}", str(len(each)),
        )
        for names, each in found.items()
    ]  # fmt: skip


def inpainting_sheet(shown: Sequence[Shown], names: Sequence[str] = (*MASKED[:2], *STEERED[1:])) -> Image.Image:
    """A row for each pair: the drawn image, the mask, and the edits."""
    pictures = [
        [one.drawn, np.where(one.mask[..., None], 255, one.drawn).astype(np.uint8), *(one.images[n] for n in names)]
        for one in shown
    ]
    return sheet(pictures, [[one.prompts[0], "mask", *names] for one in shown])

"""Editors of flow models measured on images that the world drew: what the edit does, and what stays.

The pairs are those of `bench_inversions`: a drawn scene and the same with another thing in the place of one. Editors
that take a mask get the outlines of both things, which are exactly known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from promptweave.benchmarks.bench_inversions import Pictures, Row, judged
from promptweave.benchmarks.drawn_swaps import Swap, swap_of
from promptweave.benchmarks.measure_given import recipe
from promptweave.core.control import Control
from promptweave.editing.edit import run_many
from promptweave.editing.masks import with_controls
from promptweave.methods import Consist, DirectEdit, FlowEdit, KVEdit, LocalBlend, Replace, UniEdit
from promptweave.models.base import Model
from promptweave.view.sheet import sheet
from promptweave.world.caption import caption

BATCH = 8  # pairs that share forward passes
SHOWN = 8  # pairs on the sheet


Make = Callable[[Swap], tuple[Control, ...]]
EDITORS: dict[str, tuple[str, Make]] = {  # name -> (inversion, controls)
    "no control": ("direct", lambda pair: ()),
    "joint injection": ("direct", lambda pair: (Replace(joint=0.6),)),
    "FlowEdit": ("direct", lambda pair: (FlowEdit(),)),
    "Consist": ("direct", lambda pair: (Consist(pair.old),)),
    "UniEdit": (UniEdit.inversion, lambda pair: (UniEdit(),)),
    "UniEdit, omega 2": (UniEdit.inversion, lambda pair: (UniEdit(omega=2.0),)),
    "UniEdit, strength 0.8": (UniEdit.inversion, lambda pair: (UniEdit(0.8),)),
    "DirectEdit": (DirectEdit.inversion, lambda pair: (DirectEdit(),)),
    "DirectEdit, blend": (DirectEdit.inversion, lambda pair: (DirectEdit(), LocalBlend(pair.old))),
    "DirectEdit, blend, direct": ("direct", lambda pair: (DirectEdit(), LocalBlend(pair.old))),
    "KV-Edit, word": ("direct", lambda pair: (KVEdit(words=pair.old),)),
    "KV-Edit, mask": ("direct", lambda pair: (KVEdit(pair.mask),)),
    "KV-Edit, mask, new noise": ("direct", lambda pair: (KVEdit(pair.mask, reinitialise=True),)),
}


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for an editor that is not listed."""
    unknown = [name for name in names if name not in EDITORS]
    if unknown:
        raise ValueError(
            f"Editors that can be measured: {', '.join(EDITORS)}. Received {', '.join(unknown)}. Name one of these."
        )


def bench_editors(
    model: Model, names: Sequence[str] = (), *, count: int, steps: int, guidance: int | float, seed: int = 5000,
    first: int = 0, progress: Callable[[], Any] | None = None,
) -> Iterator[tuple[Row, Pictures]]:  # fmt: skip
    """The rows of pairs `first` to `count` - 1 under each editor (default: all), as they are made.

    Raises ValueError for unknown names.
    """
    check_names(names)
    chosen = tuple(names) or tuple(EDITORS)
    for begin in range(first, count, BATCH):
        pairs = [swap_of(seed, number) for number in range(begin, min(count, begin + BATCH))]
        for name in chosen:
            inversion, controls = EDITORS[name]
            asked = [
                with_controls(
                    recipe(
                        model, pair.scene, (caption(pair.other),), steps, guidance, inversion=inversion,
                        seed=seed + pair.number,
                    ),
                    controls(pair), model,
                )
                for pair in pairs
            ]  # fmt: skip
            started = time.perf_counter()
            made = run_many(asked, model)
            spent = (time.perf_counter() - started) / len(pairs)
            for pair, result in zip(pairs, made, strict=True):
                rows, pictures = judged(
                    inversion, pair.number, (pair.scene, pair.other), (pair.old, pair.new),
                    result.sample.pictures[:, 0], spent, (name,),
                )  # fmt: skip
                yield rows[0], replace(pictures, inversion=name)
                if progress:
                    progress()


def editor_sheet(found: Sequence[Pictures]) -> Image.Image:
    """A row of images for each pair: the drawn one and its edits, as they come in `found`."""
    numbers = list(dict.fromkeys(each.pair for each in found))
    lines = [[each for each in found if each.pair == number] for number in numbers]
    rows = [[line[0].images[0], *(each.images[-1] for each in line)] for line in lines]
    return sheet(rows, [["drawn", *(each.inversion for each in lines[0])], *([""] * len(row) for row in rows[1:])])

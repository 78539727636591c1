"""Editors of flow models measured on images that the world drew: what the edit does, and what stays.

The pairs are those of `bench_inversions`: a drawn scene and the same with another thing in the place of one. Editors
that take a mask get the outlines of both things, which are exactly known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from promptweave.benchmarks.bench_inversions import Pictures, Row, measured
from promptweave.benchmarks.drawn_swaps import swap_of
from promptweave.benchmarks.editors import EDITORS as ALL
from promptweave.benchmarks.editors import INJECTED, PLAIN, Editor
from promptweave.models.base import Model
from promptweave.view.sheet import sheet

BATCH = 8  # pairs that share forward passes
SHOWN = 8  # pairs on the sheet


EDITORS: dict[str, Editor] = {
    "no control": ALL[PLAIN],
    "joint injection": ALL[INJECTED],
    **{name: ALL[name] for name in ("FlowEdit", "Consist", "UniEdit")},
    "UniEdit, omega 2": ALL["UniEdit"].with_(omega=2.0),
    "UniEdit, strength 0.8": ALL["UniEdit"].with_(strength=0.8),
    **{name: ALL[name] for name in ("DirectEdit", "DirectEdit, blend")},
    "DirectEdit, blend, direct": ALL["DirectEdit, blend"].with_(inversion="direct"),
    **{name: ALL[name] for name in ("KV-Edit, word", "KV-Edit, mask")},
    "KV-Edit, mask, new noise": ALL["KV-Edit, mask"].with_(reinitialise=True),
}


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for an editor that is not listed."""
    unknown = [name for name in names if name not in EDITORS]
    if unknown:
        raise ValueError(
            f"Editors that can be measured: {'; '.join(EDITORS)}. Received {'; '.join(unknown)}. Name one of these."
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
            editor, inversion = EDITORS[name], EDITORS[name].inversion or "direct"
            for (row,), pictures in measured(model, inversion, pairs, {name: editor}, steps, guidance, seed):
                yield row, replace(pictures, inversion=name)
                if progress:
                    progress()


def editor_sheet(found: Sequence[Pictures]) -> Image.Image:
    """A row of images for each pair: the drawn one and its edits, as they come in `found`."""
    numbers = list(dict.fromkeys(each.pair for each in found))
    lines = [[each for each in found if each.pair == number] for number in numbers]
    rows = [[line[0].images[0], *(each.images[-1] for each in line)] for line in lines]
    return sheet(rows, [["drawn", *(each.inversion for each in lines[0])], *([""] * len(row) for row in rows[1:])])

"""Inversions measured on images that the world drew: what the edit does, what stays, and what it costs.

Each pair is a drawn scene and the same with another thing; the outlines of both are known exactly. A row is a pair
under one inversion and one editor. Beside the inversions stand the methods that optimise the image instead
(`OPTIMISED`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from promptweave.benchmarks.drawn_swaps import Swap, editors_of, swap_of
from promptweave.benchmarks.editors import EDITORS, Editor
from promptweave.benchmarks.judging import oracle
from promptweave.benchmarks.measure_given import recipe
from promptweave.editing.edit import run_many
from promptweave.editing.masks import with_controls
from promptweave.editing.values import as_json
from promptweave.evaluate.metrics import psnr
from promptweave.models.base import Model
from promptweave.view.sheet import sheet
from promptweave.world.render import render

COLUMNS = ("inversion", "editor", "success", "PSNR outside", "PSNR of the source", "seconds", "pairs")
SOURCE = "source's row"
OPTIMISED = {
    "dds": EDITORS["DDS"],
    "cds": EDITORS["CDS"],
}


@dataclass(frozen=True)
class Row:
    """One edit of a drawn image. `success`: the new thing is there and the old one gone, by the oracle. `outside`: PSNR
    in dB to the image, outside both things; `source`: that of the source's row. `seconds`: inversion and all edits."""

    inversion: str
    editor: str
    pair: int
    success: bool
    outside: float
    source: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images of a pair: given, source's row, and the edits, whose editors are named."""

    inversion: str
    pair: int
    images: tuple[np.ndarray, ...]
    editors: tuple[str, ...] = ()


def bench_inversions(
    model: Model, inversions: Sequence[str], editors: Mapping[str, Editor] | None = None, *, count: int, steps: int,
    guidance: int | float, seed: int = 5000, first: int = 0, batch: int = 1, progress: Callable[[], Any] | None = None,
) -> Iterator[tuple[list[Row], Pictures]]:  # fmt: skip
    """The rows of pairs `first` to `count` - 1 under each inversion, a row for each editor (default: no control and
    Prompt-to-Prompt), as they are made; `batch` pairs share forward passes."""
    chosen = editors_of(model) if editors is None else dict(editors)
    for begin in range(first, count, batch):
        pairs = [swap_of(seed, number) for number in range(begin, min(count, begin + batch))]
        for name in inversions:
            inversion, asked = ("direct", {"alone": OPTIMISED[name]}) if name in OPTIMISED else (name, chosen)
            if name != inversions[0] and name not in OPTIMISED:
                asked = {called: editor for called, editor in chosen.items() if editor.inversion}
            for rows, pictures in measured(model, inversion, pairs, asked, steps, guidance, seed, called=name):
                yield rows, pictures
                if progress:
                    progress()


def measured(
    model: Model, inversion: str, pairs: Sequence[Swap], editors: Mapping[str, Editor], steps: int,
    guidance: int | float, seed: int, called: str = "",
) -> Iterator[tuple[list[Row], Pictures]]:  # fmt: skip
    """The rows of pairs that share forward passes under one inversion, and their images; `called`: its name there."""
    started = time.perf_counter()
    made = _edited(model, inversion, pairs, editors, steps, guidance, seed)
    spent = (time.perf_counter() - started) / len(pairs)
    for pair, images in zip(pairs, made, strict=True):
        yield judged(called or inversion, pair, images, spent, tuple(editors))


def _edited(
    model: Model, inversion: str, pairs: Sequence[Swap], editors: Mapping[str, Editor], steps: int,
    guidance: int | float, seed: int,
) -> list[np.ndarray]:  # fmt: skip
    """The images of each pair [source, edits ...]; editors that act on their own rows alone share a run."""
    together = [name for name, editor in editors.items() if not editor.alone]
    found: list[dict[str, np.ndarray]] = [{} for _ in pairs]
    for group in filter(None, [together, *([name] for name, editor in editors.items() if editor.alone)]):
        asked = [
            with_controls(
                recipe(
                    model, pair.scene, tuple(editors[name].prompt(pair.known) for name in group), steps, guidance,
                    inversion=inversion, seed=seed + pair.number,
                ),
                [part for row, name in enumerate(group, 1) for part in editors[name].controls(pair.known, (row,))],
                model,
            )
            for pair in pairs
        ]  # fmt: skip
        for images, made in zip(found, run_many(asked, model), strict=True):
            source, *edits = made.sample.pictures[:, 0]
            images.setdefault(SOURCE, source)
            images.update(zip(group, edits, strict=True))
    return [np.stack([images[SOURCE], *(images[name] for name in editors)]) for images in found]


def judged(
    inversion: str, pair: Swap, pictures: np.ndarray, spent: float, editors: Sequence[str]
) -> tuple[list[Row], Pictures]:
    """The row of each editor, and the images; `pictures` [1 + editors, height, width, 3] begin with the source's."""
    drawn = render(pair.scene)[0]
    outside = np.asarray(~np.concatenate([render(scene)[1] for scene in (pair.scene, pair.other)]).any(0))
    rows = [
        Row(
            inversion, editor, pair.number, sight.has(pair.new) and not sight.has(pair.old),
            psnr(drawn, image, outside), psnr(drawn, pictures[0]), spent,
        )
        for editor, image, sight in zip(editors, pictures[1:], oracle().look(pictures[1:]), strict=True)
    ]  # fmt: skip
    return rows, Pictures(inversion, pair.number, (drawn, *pictures), tuple(editors))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Append rows to a file, one JSON object a line."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(as_json(asdict(row)) + "\n" for row in rows)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file."""
    return [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The means of each inversion and editor, as a table."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.inversion, row.editor), []).append(row)
    return [
        (
            inversion, editor, f"{np.mean([r.success for r in each]):.0%}",
            f"{np.mean([r.outside for r in each]):.1f}", f"{np.mean([r.source for r in each]):.1f}",
            f"{np.median([r.seconds for r in each]):.1f}", str(len(each)),
        )
        for (inversion, editor), each in found.items()
    ]  # fmt: skip


def inversion_sheet(found: Sequence[Pictures]) -> Image.Image:
    """A row of images for each inversion of one pair."""
    rows = [list(each.images) for each in found]
    labels = [
        [f"{each.inversion}: {name}" if place else name for place, name in enumerate(_columns(each))] for each in found
    ]
    return sheet(rows, labels)


def pair_sheet(found: Sequence[Pictures]) -> Image.Image:
    """A row of images for each pair of one inversion, with the names of the editors once."""
    named = [list(_columns(found[0])), *([""] * len(each.images) for each in found[1:])]
    return sheet([list(each.images) for each in found], named)


def write_sheets(folder: Path, shown: Sequence[Pictures], inversions: int) -> None:
    """Write the sheet of the last pair if it is complete, and that of its inversion so far."""
    last = shown[-1]
    pair = [each for each in shown if each.pair == last.pair]
    same = [each for each in shown if each.inversion == last.inversion and len(each.images) == len(last.images)]
    folder.mkdir(parents=True, exist_ok=True)
    if len(pair) == inversions:
        inversion_sheet(pair).save(folder / f"inversions-{last.pair}.webp", quality=80)
    pair_sheet(same).save(folder / f"editors-{last.inversion.partition(':')[0]}.webp", quality=75)


def _columns(found: Pictures) -> tuple[str, ...]:
    return ("drawn", SOURCE, *found.editors)

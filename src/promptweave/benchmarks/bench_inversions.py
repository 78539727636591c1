"""Inversions measured on images that the world drew: what the edit does, what stays, and what it costs.

Each pair is a drawn scene and the same with another thing; the outlines of both are known exactly. A row is a pair
under one inversion, with Prompt-to-Prompt and without control. Beside the inversions stand the methods that optimise
the image instead (`OPTIMISED`).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from promptweave.benchmarks.judging import oracle
from promptweave.benchmarks.measure_given import recipe, swap
from promptweave.core.control import Control
from promptweave.editing.edit import run
from promptweave.editing.values import as_json
from promptweave.evaluate.metrics import psnr
from promptweave.methods import ContrastiveDenoising, DeltaDenoising, Replace
from promptweave.models.base import Model
from promptweave.view.sheet import sheet
from promptweave.world.caption import caption
from promptweave.world.render import render
from promptweave.world.scene import Scene

COLUMNS = ("inversion", "editor", "success", "PSNR outside", "PSNR of the source", "seconds", "pairs")
EDITORS = ("no control", "Prompt-to-Prompt")
OPTIMISED: dict[str, type[Control]] = {"dds": DeltaDenoising, "cds": ContrastiveDenoising}


@dataclass(frozen=True)
class Row:
    """One edit of a drawn image. `success`: the new thing is there and the old one gone, by the oracle. `outside`: PSNR
    in dB to the image, outside both things; `source`: that of the source's row. `seconds`: inversion and both edits."""

    inversion: str
    editor: str
    pair: int
    success: bool
    outside: float
    source: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images of a pair: given, source's row, and the edits, without control and with Prompt-to-Prompt, or one."""

    inversion: str
    pair: int
    images: tuple[np.ndarray, ...]


def bench_inversions(
    model: Model, inversions: Sequence[str], *, count: int, steps: int, guidance: int | float, seed: int = 5000,
    first: int = 0, progress: Callable[[], Any] | None = None,
) -> Iterator[tuple[list[Row], Pictures]]:  # fmt: skip
    """The rows of pairs `first` to `count` - 1 under each inversion, as they are made."""
    joint = any(site.kind == "joint" for site in model.sites((8, 8)))
    injection = Replace(targets=(2,), joint=0.6) if joint else Replace(targets=(2,))
    for number in range(first, count):
        scene, other, old, new = swap(random.Random(f"inversions {seed} {number}"))
        for inversion in inversions:
            target, begin = caption(other), time.perf_counter()
            if inversion in OPTIMISED:
                targets, how = (target,), {"controls": (OPTIMISED[inversion](),)}
            else:
                targets, how = (target, target), {"controls": (injection,), "inversion": inversion}
            made = run(recipe(model, scene, targets, steps, guidance, **how, seed=seed + number), model)
            spent = time.perf_counter() - begin
            picture = made.recipe.picture
            assert picture is not None
            editors = ("alone",) if inversion in OPTIMISED else EDITORS
            yield judged(inversion, number, (scene, other), (old, new), made.sample.pictures[:, 0], spent, editors)
            if progress:
                progress()


def judged(
    inversion: str, number: int, scenes: tuple[Scene, Scene], nouns: tuple[str, str], pictures: np.ndarray,
    spent: float, editors: Sequence[str] = EDITORS,
) -> tuple[list[Row], Pictures]:  # fmt: skip
    """The row of each editor, and the images; `pictures` [1 + editors, height, width, 3] begin with the source's."""
    drawn = render(scenes[0])[0]
    outside = np.asarray(~np.concatenate([render(scene)[1] for scene in scenes]).any(0))
    old, new = nouns
    rows = [
        Row(
            inversion, editor, number, sight.has(new) and not sight.has(old), psnr(drawn, image, outside),
            psnr(drawn, pictures[0]), spent,
        )
        for editor, image, sight in zip(editors, pictures[1:], oracle().look(pictures[1:]), strict=True)
    ]  # fmt: skip
    return rows, Pictures(inversion, number, (drawn, *pictures))


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


def _columns(found: Pictures) -> tuple[str, ...]:
    return ("drawn", "source's row", *(EDITORS if len(found.images) > 3 else ("edit",)))

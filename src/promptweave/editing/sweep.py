"""One edit over a grid of settings, from recordings: every row of the source is computed once."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from promptweave.core.clock import Number
from promptweave.core.control import Control, NoEffect
from promptweave.editing.edit import run_many
from promptweave.editing.options import Options
from promptweave.editing.plan import bind, plan
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording, record_run
from promptweave.editing.result import Result
from promptweave.methods import Refine, Replace, Reweight
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.sampling.recording import Kept, Place
from promptweave.sampling.walk import Progress
from promptweave.view.sheet import grid_sheet

AXES = ("cross", "self_attention", "joint", "threshold", "blend_start", "shared_start", "seed")
WEIGHT = "weight:"  # an axis over the weight of a word, "weight:snow"


@dataclass(frozen=True, eq=False)
class Sweep:
    """A grid of edits. `cells[row][column]` is the edit with `rows` = (name, values) and `columns` at their values."""

    source: str
    target: str
    rows: tuple[str, tuple[Number, ...]]
    columns: tuple[str, tuple[Number, ...]]
    cells: tuple[tuple[Result, ...], ...]

    @property
    def pictures(self) -> np.ndarray:
        """The edits, uint8 [rows, columns, height, width, 3]."""
        return np.stack([np.stack([cell.sample.pictures[1, 0] for cell in row]) for row in self.cells])

    def sheet(self) -> Image.Image:
        """The grid with its labels; the source stands beside the title."""
        (row_name, row_values), (column_name, column_values) = self.rows, self.columns
        return grid_sheet(
            [[cell.sample.pictures[1, 0] for cell in row] for row in self.cells],
            [f"{_label(row_name)} {value:g}" for value in row_values],
            [f"{_label(column_name)} {value:g}" for value in column_values],
            source=None if "seed" in (row_name, column_name) else self.cells[0][0].sample.pictures[0, 0],
            title=(f"source: {self.source}", f"target: {self.target}"),
        )

    def save(self, folder: Path | str, *, force: bool = False) -> list[Path]:
        """Write sweep.png, sweep.json and a PNG for each cell that carries its own recipe; all of them or none."""
        folder = Path(folder)
        check_sweep(folder, force=force)
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".promptweave-", dir=folder))
        try:
            names: list[list[str]] = []
            for value, row in zip(self.rows[1], self.cells, strict=True):
                names.append([])
                for other, cell in zip(self.columns[1], row, strict=True):
                    name = f"{_label(self.rows[0])}-{value:g}-{_label(self.columns[0])}-{other:g}.png".replace(" ", "-")
                    cell.save_picture(fresh / name, 1, 0)
                    names[-1].append(name)
            self.cells[0][0].save_picture(fresh / "source.png", 0, 0)
            self.sheet().save(fresh / "sweep.png")
            record = {
                "source": self.source, "target": self.target, "rows": self.rows, "columns": self.columns,
                "files": names, "distance": [[cell.report["distance"][0][0] for cell in row] for row in self.cells],
            }  # fmt: skip
            (fresh / "sweep.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
            written = sorted(fresh.iterdir())
            for path in written:
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return [folder / path.name for path in written]


def check_sweep(folder: Path, *, force: bool) -> None:
    """Raise before any work is done if the folder holds a sweep."""
    if (folder / "sweep.json").exists() and not force:
        raise FileExistsError(
            f"{folder} already holds a sweep. Choose another folder with -o, or replace it with --force."
        )


def sweep(
    source: str | Recording,
    target: str,
    *,
    rows: tuple[str, Sequence[Number]] = ("self_attention", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    columns: tuple[str, Sequence[Number]] = ("cross", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    model: Model | str = "toybox",
    batch: int = 4,
    place: Place = "cpu",
    budget: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Sweep:
    """Edit `source` into `target` with every pair of settings from two axes, on one recording (one a seed).

    `source` may be a recording whose windows hold all those of the grid; its seed is then no axis.

    An axis is a name and values: cross, self_attention, joint, threshold, blend_start, shared_start, seed, or
    "weight:word". `batch`: cells in one forward pass. `place` and `budget` are the recording's; `options` those of
    `edit`. A cell whose windows are all closed shows the target without injection.
    """
    network = load_cached(model) if isinstance(model, str) else model
    axes = _axis(rows), _axis(columns)
    if axes[0][0] == axes[1][0]:
        raise ValueError(f"The two axes of a sweep must differ. Received {axes[0][0]} for both.")
    names = {field.name for field in fields(Options)}
    general = {key: value for key, value in options.items() if key not in names}
    fixed = {key: value for key, value in options.items() if key in names}
    planned = [
        [_cell(network, source, target, {axes[0][0]: a, axes[1][0]: b}, fixed, general) for b in axes[1][1]]
        for a in axes[0][1]
    ]
    recipes = [recipe for row in planned for recipe in row]
    recordings: dict[int, Recording] = {} if isinstance(source, str) else {source.recipe.seed: source}
    for recipe in recipes:
        if recipe.seed not in recordings:
            alone = replace(recipe, targets=(), controls=())
            kept = _kept([other for other in recipes if other.seed == recipe.seed])
            recordings[recipe.seed] = record_run(
                alone, network, kept=kept, place=place, budget=budget, progress=progress
            )
    made: list[Result] = []
    for first in range(0, len(recipes), batch):
        some = recipes[first : first + batch]
        given = [recordings[recipe.seed] for recipe in some]
        made += run_many(some, network, recordings=given, progress=progress)
    width = len(axes[1][1])
    cells = tuple(tuple(made[i : i + width]) for i in range(0, len(made), width))
    return Sweep(source if isinstance(source, str) else source.prompt, target, axes[0], axes[1], cells)


def _axis(axis: tuple[str, Sequence[Number]]) -> tuple[str, tuple[Number, ...]]:
    name, values = axis
    if name not in AXES and not name.startswith(WEIGHT):
        raise ValueError(f"An axis of a sweep is one of {', '.join(AXES)} or weight:word. Received {name!r}.")
    if not values or len(set(values)) < len(values):
        raise ValueError(f"An axis needs values, each once. Received {list(values)} for {name}.")
    return name, tuple(values)


def _cell(
    model: Model,
    source: str | Recording,
    target: str,
    at: Mapping[str, Number],
    fixed: Mapping[str, Any],
    general: Mapping[str, Any],
) -> Recipe:
    """The recipe of a cell."""
    weights = dict(fixed.get("weights") or {})
    weights.update({name[len(WEIGHT) :]: value for name, value in at.items() if name.startswith(WEIGHT)})
    chosen = {name: value for name, value in at.items() if not name.startswith(WEIGHT) and name != "seed"}
    options = Options(**{**fixed, **chosen, "weights": weights or None})
    settings = {**general, **({"seed": int(at["seed"])} if "seed" in at else {})}
    recipe = plan(source, [target], model, options, **settings)
    windowed = [c for c in recipe.controls if isinstance(c, Replace | Refine | Reweight)]
    closed = [c for c in windowed if _closed(c, recipe, model)]
    neutral = [c for c in recipe.controls if type(c).__name__ == "Reweight" and set(weights.values()) == {1}]
    return replace(recipe, controls=tuple(c for c in recipe.controls if c not in (*closed, *neutral)))


def _closed(control: Control, recipe: Recipe, model: Model) -> bool:
    """Whether a control's windows hold no step of the run."""
    try:
        bind(replace(recipe, controls=(control,)), model)
    except NoEffect:
        return True
    return False


def _kept(recipes: Sequence[Recipe]) -> Kept:
    """What a recording must hold for all the recipes."""
    injections = [c for recipe in recipes for c in recipe.controls if isinstance(c, Replace | Refine)]
    ends: dict[str, float] = {"cross": 0.0, "self_attention": 0.0, "joint": 0.0}
    for control in injections:
        for name in ends:
            value: Any = getattr(control, name)
            spans = value.values() if isinstance(value, Mapping) else [value]
            ends[name] = max([ends[name], *(float(s[1] if isinstance(s, tuple) else s) for s in spans)])
            if isinstance(value, Mapping) and "default" not in value:
                ends[name] = 1.0
    grids = [control.self_grid for control in injections]
    grid = None if not grids or None in grids else max(grid for grid in grids if grid is not None)
    maps = any(type(control).__name__ == "LocalBlend" for recipe in recipes for control in recipe.controls)
    return Kept(ends["cross"], ends["self_attention"], ends["joint"], grid, maps)


def _label(name: str) -> str:
    return {"self_attention": "self", "blend_start": "start"}.get(name, name.removeprefix(WEIGHT))

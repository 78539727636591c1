"""One edit over a grid of settings, from recordings: every row of the source is computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from PIL import Image

from promptweave.core.clock import Number
from promptweave.core.control import Control
from promptweave.core.fields import options_of
from promptweave.core.file_names import new_name
from promptweave.core.files import Write, check_folder, write_files
from promptweave.core.kept import NOTHING, together
from promptweave.core.shown import brief, short
from promptweave.core.typed import checked
from promptweave.editing.checking import remembering
from promptweave.editing.drawn_sheet import sheet_writer
from promptweave.editing.edit import run_many
from promptweave.editing.inverted_file import InvertedImage
from promptweave.editing.options import EditOptions, PromptToPrompt
from promptweave.editing.own_model import model_of
from promptweave.editing.picture import Given, Picture
from promptweave.editing.plan import bind, plan
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording, record_run
from promptweave.editing.result import Result
from promptweave.editing.settings import Settings, split
from promptweave.editing.values import as_json, numeric, read_option, whole
from promptweave.inversion import Inversion
from promptweave.models.base import Model
from promptweave.sampling.recording import Place
from promptweave.sampling.walk import Progress
from promptweave.view.html_image import as_html
from promptweave.view.sheet import grid_sheet

AXES = {  # the numbers with a range; of several images a cell shows the first
    listed.name: listed
    for kind in (PromptToPrompt, Settings)
    for listed in options_of(kind)
    if numeric(listed) and listed.name != "images"
}
USUAL = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # values of an axis that is not given
WEIGHT = "weight:"  # an axis over the weight of a word, "weight:snow"


@dataclass(frozen=True, eq=False)
class Sweep:
    """A grid of edits. `cells[row][column]` is the edit with `rows` = (name, values) and `columns` at their values.

    `call`: the call that made it."""

    source: str
    target: str
    rows: tuple[str, tuple[Number, ...]]
    columns: tuple[str, tuple[Number, ...]]
    cells: tuple[tuple[Result, ...], ...]
    call: str = "from the recipes of its images"

    def __repr__(self) -> str:
        axes = [f"{_label(name)} {values[0]:g} to {values[-1]:g} ({len(values)})" for name, values in
                (self.columns, self.rows)]  # fmt: skip
        return brief(self, f"{short(self.source)} -> {short(self.target)}", *axes)

    def _repr_html_(self) -> str:
        return as_html(self.sheet(), repr(self))

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
        files: dict[str, Write] = {}
        names: list[list[str]] = []
        for value, row in zip(self.rows[1], self.cells, strict=True):
            names.append([])
            for other, cell in zip(self.columns[1], row, strict=True):
                name = f"{_label(self.rows[0])}-{_exact(value, self.rows[1])}"
                name = f"{name}-{_label(self.columns[0])}-{_exact(other, self.columns[1])}"
                name = new_name(name, ".png", files)
                files[name] = lambda path, cell=cell: cell.save_picture(path, 1, 0)
                names[-1].append(name)
        files["source.png"] = lambda path: self.cells[0][0].save_picture(path, 0, 0)
        files["sweep.png"] = sheet_writer(self.sheet(), f"the sheet of {self!r}; each image beside it has a recipe",
                                          self.call)  # fmt: skip
        record = {
            "source": self.source, "target": self.target, "rows": self.rows, "columns": self.columns,
            "files": names, "distance": [[cell.report["distance"][0][0] for cell in row] for row in self.cells],
        }  # fmt: skip
        text = as_json(record, indent=1) + "\n"
        files["sweep.json"] = lambda path: path.write_text(text, "utf-8")  # the last: it says that a sweep is there
        return write_files(folder, files)


def check_sweep(folder: Path, *, force: bool) -> None:
    """Raise before any work is done if the folder holds a sweep or cannot be written to."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"A sweep goes to a folder, and {folder} is a file. Choose another with -o.")
    if (folder / "sweep.json").exists() and not force:
        raise FileExistsError(
            f"{folder} already holds a sweep. Choose another folder with -o, or replace it with --force."
        )
    check_folder(folder)


def usual_axes(model: Model) -> tuple[str, str]:
    """The axes of a sweep that names none, columns and rows: windows of the model's kind of attention."""
    height, width = model.default_size
    sites = model.sites((height // model.factor, width // model.factor))
    joint = any(site.kind == "joint" for site in sites)
    return ("shared_start", "joint") if joint else ("cross", "self_attention")


@checked
def sweep(
    source: str | Recording | InvertedImage,
    target: str,
    *,
    rows: tuple[str, Sequence[Number]] | None = None,
    columns: tuple[str, Sequence[Number]] | None = None,
    model: Model | str | None = None,
    batch: int = 4,
    place: Place = "cpu",
    budget: int | None = None,
    image: Given | Picture | None = None,
    inversion: str | Inversion | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **options: Unpack[EditOptions],
) -> Sweep:
    """Edit `source` into `target` with every pair of settings from two axes, on one recording of each source.

    `source` may be an inverted image, or a recording whose windows hold all those of the grid; its seed, steps and
    guidance are no axes then.

    An axis is a name and values: any number among the options of `edit` (cross, self_attention, threshold, seed,
    guidance, ...), or "weight:word". None: an axis that suits the model's attention (`usual_axes`). `batch`: cells in
    one forward pass. `place` and `budget` are the recording's; options, `settings`, `image` and `inversion` those of
    `edit`. A cell whose windows are all closed shows the target without injection.
    """
    network = model_of(None if isinstance(source, str) else source.recipe, model)
    left = [name for name in usual_axes(network) if name not in (rows or columns or ("",))]
    rows = rows or (left.pop(), USUAL)
    columns = columns or (left[0], USUAL)
    if rows[0] == columns[0]:
        raise ValueError(f"The two axes of a sweep must differ. Received {rows[0]} for both.")
    axes = _axis(rows), _axis(columns)
    asked, run_options = split("sweep", options, PromptToPrompt, Settings)
    given, chosen = {**asked, **run_options}, (settings or Settings()).with_(run_options)
    for name, _ in axes:
        if name in given:
            raise ValueError(f"{name} is an axis of the sweep and was given as an option too. Leave one of them out.")

    seen = remembering(network)  # for this call: what users switch on in the network between calls is seen

    def planned(at: Mapping[str, Number]) -> Recipe:
        run_axes, edit_axes = (
            {n: v for n, v in at.items() if (n in vars(chosen)) is of_run} for of_run in (True, False)
        )
        return plan(
            source, [target], seen, _with_weights(asked, edit_axes), chosen.with_(run_axes), image=image,
            inversion=inversion,
        )  # fmt: skip

    cells = [planned({axes[0][0]: a, axes[1][0]: b}) for a in axes[0][1] for b in axes[1][1]]
    recipes = without_idle(cells, seen)
    recordings = recordings_for(source, recipes, network, place, budget, progress)
    made: list[Result] = []
    for first in range(0, len(recipes), batch):
        part = slice(first, first + batch)
        made += run_many(recipes[part], network, recordings=recordings[part], progress=progress)
    width = len(axes[1][1])
    grid = tuple(tuple(made[i : i + width]) for i in range(0, len(made), width))
    said = {"rows": axes[0], "columns": axes[1], "model": network.name, "image": image, "inversion": inversion, **given}
    changed = ", ".join(f"{name}={short(value)}" for name, value in said.items() if value is not None)
    call = f"pw.sweep({source!r}, {target!r}, {changed}{'' if settings is None else f', settings={settings!r}'})"
    return Sweep(source if isinstance(source, str) else source.prompt, target, axes[0], axes[1], grid, call)


def _axis(axis: tuple[str, Sequence[Number]]) -> tuple[str, tuple[Number, ...]]:
    name, values = axis
    if name not in AXES and not name.startswith(WEIGHT):
        raise ValueError(f"An axis of a sweep is one of {', '.join(AXES)} or weight:word. Received {name!r}.")
    if not values or len(set(values)) < len(values):
        raise ValueError(f"An axis needs values, each once. Received {list(values)} for {name}.")
    if name in AXES:
        values = [read_option(AXES[name], int(v) if whole(AXES[name]) and v == round(v) else v) for v in values]
    return name, tuple(values)


def _with_weights(asked: Mapping[str, Any], at: Mapping[str, Number]) -> dict[str, Any]:
    """The options of a cell; an axis over a word's weight joins the weights that were given."""
    weights = dict(asked.get("weights") or {})
    weights.update({name[len(WEIGHT) :]: value for name, value in at.items() if name.startswith(WEIGHT)})
    others = {name: value for name, value in at.items() if not name.startswith(WEIGHT)}
    return {**asked, **others, **({"weights": weights} if weights else {})}


def without_idle(cells: Sequence[Recipe], model: Model) -> list[Recipe]:
    """The cells without the controls that their place on the axes makes idle; one that is idle in all is an error."""
    always = in_all(cells)
    return [acting(cell, model, always) for cell in cells]


def in_all(cells: Sequence[Recipe]) -> list[Control]:
    """The controls that all cells share."""
    return [control for control in cells[0].controls if all(control in cell.controls for cell in cells)]


def acting(cell: Recipe, model: Model, always: Sequence[Control]) -> Recipe:
    """A cell without its idle controls, but for those that all have."""
    run = bind(replace(cell, controls=()), model, whole=False)
    return replace(cell, controls=tuple(c for c in cell.controls if c in always or not c.idle(run)))


def recordings_for(
    source: str | Recording | InvertedImage,
    recipes: Sequence[Recipe],
    model: Model,
    place: Place,
    budget: int | None,
    progress: Progress | None,
    *,
    maps: bool = False,
) -> list[Recording | None]:
    """A recording for each cell, shared by those of one source; none for controls that make the source themselves.
    `maps`: recorders read word maps."""
    if isinstance(source, Recording):
        return [source] * len(recipes)
    groups: dict[Recipe, list[int]] = {}
    seen = remembering(model)
    for place_of, recipe in enumerate(recipes):
        run = bind(replace(recipe, controls=()), seen)
        if all(control.recordable(run) for control in recipe.controls):
            groups.setdefault(replace(recipe, targets=(), controls=()), []).append(place_of)
    found: list[Recording | None] = [None] * len(recipes)
    for alone, cells in groups.items():
        run = bind(alone, seen)
        read = [control.reads(run) for cell in cells for control in recipes[cell].controls]
        kept = together([*read, *([replace(NOTHING, maps=True)] if maps else [])], run)
        recording = record_run(
            alone, model, kept=kept, place=place, budget=budget, progress=progress,
            source=source if isinstance(source, InvertedImage) else None,
        )  # fmt: skip
        for cell in cells:
            found[cell] = recording
    return found


def _exact(value: Number, among: Sequence[Number]) -> str:
    """A value in few digits, or in all if another of the axis would look the same."""
    short = f"{value:g}"
    return repr(value) if sum(f"{other:g}" == short for other in among) > 1 else short


def _label(name: str) -> str:
    """The name of an axis as its flag has it: self for self_attention."""
    return AXES[name].flag[2:].replace("-", " ") if name in AXES else name.removeprefix(WEIGHT)

"""The result of a run: images, report and recipe, shown or saved."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from promptweave.core.control import Hooks
from promptweave.core.files import Write, check_folder, write_files
from promptweave.editing.computed import Computed, machine
from promptweave.editing.put_back import PutBack
from promptweave.editing.recipe import FORMAT, KEY, Recipe, versions
from promptweave.editing.stored import read_record as read_record
from promptweave.editing.values import as_json
from promptweave.inversion import Inverted
from promptweave.sampling.loop import Sample
from promptweave.view.sheet import sheet

EARLIER = ("edit*.png", "source-seed-*.png", "report.html")  # of an earlier run, which may have had more of them


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run. `plain`: the targets without controls, uint8 [targets, images, height, width, 3], or None.

    `kept`: for each prompt the original at full size with its image put back (`keep_original`); else empty.
    `computed`: in which forward passes, for `replay`.
    """

    recipe: Recipe
    sample: Sample
    plain: np.ndarray | None
    report: dict[str, Any]
    model_hash: str
    grid: tuple[int, int]
    inverted: Inverted | None = None  # of the input image
    kept: tuple[PutBack, ...] = ()
    computed: Computed = Computed()

    def picture(self, row: int, image: int = 0) -> Image.Image:
        """The image of a prompt and a seed, by their numbers: in the original at full size if that is kept."""
        return self.kept[row].image if self.kept else Image.fromarray(self.sample.pictures[row, image])

    @property
    def source(self) -> Image.Image:
        """The source image of the first seed; the original itself if that is kept."""
        return self.picture(0)

    @property
    def edits(self) -> list[Image.Image]:
        """The edited images of the first seed, one per target, at full size if the original is kept."""
        return [self.picture(row) for row in range(1, len(self.sample.pictures))]

    @property
    def edited(self) -> Image.Image:
        """The first edited image."""
        return self.edits[0]

    @property
    def watched(self) -> tuple[Hooks, ...]:
        """The hooks of the recorders that ran along."""
        return self.sample.hooks[len(self.recipe.controls) :]

    @cached_property
    def record(self) -> dict[str, Any]:
        """Recipe, report, spans, schedule, model and versions, as JSON values."""
        run = self.sample.run
        spans = [[{"word": w.text, "tokens": list(w.tokens)} for w in words.words] for words in run.words]
        return {
            "format": FORMAT,
            "recipe": self.recipe.as_dict(),
            "spans": spans,
            "schedule": {"sampler": self.recipe.scheduler, "steps": self.recipe.steps, "latent": list(self.grid)},
            "model": {"name": self.recipe.model, "hash": self.model_hash},
            "versions": versions(),
            "machine": machine(self.sample.run.device),
            "computed": self.computed.as_dict(),
            "report": self.report,
        }

    def comparison(self) -> Image.Image:
        """A labelled sheet, one row per seed: the input image if there is one, source, edits, and the targets without
        controls if they were generated."""
        pictures, recipe = self.sample.pictures, self.recipe
        first = f"source: {recipe.source}" if recipe.targets else recipe.source
        labels = [first, *(f"edit: {target}" for target in recipe.targets)]
        rows = [list(pictures[:, i]) for i in range(recipe.images)]
        if self.plain is not None:
            labels += [f"no control: {prompt}" for prompt in recipe.targets or recipe.prompts]
            rows = [row + list(self.plain[:, i]) for i, row in enumerate(rows)]
        if recipe.picture is not None and np.array_equal(recipe.picture.pixels(), pictures[0, 0]):
            labels[0] = "given picture"  # which stands for the source
        elif recipe.picture is not None:
            rows, labels = [[recipe.picture.pixels(), *rows[0]]], ["given picture", *labels]
        texts = [
            labels if recipe.images == 1 else [f"{t} (seed {recipe.seed + i})" for t in labels]
            for i in range(len(rows))
        ]
        return sheet(rows, texts)

    def files(self) -> dict[str, tuple[int, int]]:
        """File name -> (prompt, image)."""
        names: dict[str, tuple[int, int]] = {}
        for row in range(len(self.recipe.prompts)):
            stem = "source" if row == 0 else "edit" if row == 1 else f"edit-{row}"
            for image in range(self.recipe.images):
                names[f"{stem}{f'-seed-{self.recipe.seed + image}' if image else ''}.png"] = (row, image)
        return names

    def save(self, folder: Path | str, *, force: bool = False, pages: Mapping[str, str] | None = None) -> list[Path]:
        """Write source.png, edit.png, edit-2.png ..., comparison.png and edit.json: either all of them or none.

        Every PNG carries the record. `pages`: further text files by name, such as
        `{"report.html": promptweave.html_report(result)}`. Raises FileExistsError if the folder holds a run and `force`
        is not given.
        """
        folder = Path(folder)
        check_output(folder, force=force)
        files: dict[str, Write] = {name: self._writer(row, image) for name, (row, image) in self.files().items()}
        files["comparison.png"] = lambda path: self.comparison().save(path, pnginfo=self._info(0, 0, sheet=1))
        for name, text in (pages or {}).items():
            files[name] = lambda path, text=text: path.write_text(text, "utf-8")
        # the last, for it says that a run is there
        files["edit.json"] = lambda path: path.write_text(as_json(self.record, indent=1) + "\n", "utf-8")
        return write_files(folder, files, without=EARLIER if force else ())

    def _writer(self, row: int, image: int) -> Write:
        return lambda path: self.save_picture(path, row, image)

    def save_picture(self, path: Path, row: int, image: int) -> None:
        """Write one image as a PNG that carries the record."""
        self.picture(row, image).save(path, pnginfo=self._info(row, image))

    def _info(self, row: int, image: int, **more: int) -> PngInfo:
        info = PngInfo()
        record = {**self.record, "picture": {"prompt": row, "image": image, **more}}
        info.add_itxt(KEY, as_json(record))
        return info

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        self.comparison().save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        return f'<img alt="source and edits" src="data:image/png;base64,{data}"/>'


def check_output(folder: Path, *, force: bool = False) -> None:
    """Raise before any work is done if results cannot be written to `folder`."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"Results go to a folder, and {folder} is a file. Choose another with -o.")
    if (folder / "edit.json").exists() and not force:
        raise FileExistsError(
            f"{folder} already holds a run. Choose another folder with -o, or replace it with --force."
        )
    check_folder(folder)

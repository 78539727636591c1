"""The result of a run: images, report and recipe, shown or saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from promptweave.core.control import Hooks
from promptweave.core.files import Write, check_folder, write_files
from promptweave.core.shown import brief
from promptweave.editing.computed import Computed, machine
from promptweave.editing.put_back import PutBack
from promptweave.editing.recipe import FORMAT, KEY, Recipe, versions
from promptweave.editing.stored import read_record as read_record
from promptweave.editing.values import as_json
from promptweave.inversion import Inverted
from promptweave.sampling.loop import Sample
from promptweave.view.html_image import as_html
from promptweave.view.sheet import sheet

STEERED, ALONE = "steered", "image"  # of a single prompt, under controls and without
# What an earlier run may have left.
EARLIER = ("edit*.png", "edit.json", "steered.json", "comparison.png", "report.html", *(
    f"{stem}{more}.png" for stem in ("source", "plain", STEERED, ALONE) for more in ("", "-seed-*")
), f"{STEERED}-*.png")  # fmt: skip
RUNS = ("edit.json", f"{STEERED}.json", f"{ALONE}.png")  # each says that a folder holds a run


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

    def __repr__(self) -> str:
        return brief(self, self.recipe.told)

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
        """The first edited image. Raises ValueError for a run without targets."""
        if not self.recipe.targets:
            raise ValueError(
                "edited is the image of a target, and this run has none: its image is result.source. "
                "For an edit, call pw.edit(source, target)."
            )
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

    @property
    def steered(self) -> bool:
        """Whether it is the image of a single prompt under controls, not an edit."""
        return not self.recipe.targets and (bool(self.recipe.controls) or self.plain is not None)

    def caption(self, row: int) -> str:
        """What a row shows: its prompt, or what was done to it if its prompt is the source's."""
        recipe, prompt = self.recipe, self.recipe.prompts[row]
        names = ", ".join(type(control).__name__ for control in recipe.controls)
        if row == 0:
            return f"source: {prompt}" if recipe.targets else f"{names}: {prompt}" if names else prompt
        if prompt != recipe.source:
            return f"edit: {prompt}"
        return f"edit: {', '.join(filter(None, (c.caption(row) for c in recipe.controls))) or names or prompt}"

    def comparison(self) -> Image.Image:
        """A labelled sheet, one row per seed: the input image if there is one, source, edits, and the targets without
        controls if they were generated."""
        pictures, recipe = self.sample.pictures, self.recipe
        labels = [self.caption(row) for row in range(len(recipe.prompts))]
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

    def files(self, stems: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
        """File name -> (prompt, image). `stems`: names of the prompts' files, instead of the usual ones."""
        names: dict[str, tuple[int, int]] = {}
        first = "source" if self.recipe.targets else STEERED if self.steered else ALONE
        for row in range(len(self.recipe.prompts)):
            stem = stems[row] if stems else first if row == 0 else "edit" if row == 1 else f"edit-{row}"
            for image in range(self.recipe.images):
                names[self._named(stem, image)] = (row, image)
        return names

    def _named(self, stem: str, image: int) -> str:
        return f"{stem}{f'-seed-{self.recipe.seed + image}' if image else ''}.png"

    def save(
        self, folder: Path | str, *, force: bool = False, pages: Mapping[str, str] | None = None,
        stems: Sequence[str] = (),
    ) -> list[Path]:  # fmt: skip
        """Write the images and what belongs to them: either all of it or nothing.

        Of an edit source.png, edit.png, edit-2.png ..., comparison.png and edit.json; of a single prompt image.png,
        and comparison.png if there are several; of a single prompt under controls steered.png, plain.png (without the
        controls, if that was made), comparison.png and steered.json. Every PNG carries the record. `pages`: further
        text files by name, such as `{"report.html": promptweave.html_report(result)}`. `stems`: other names for the
        prompts' files, ("plain", "steered-left"), of prompts that are steered, not edited: their record is
        steered.json. Raises FileExistsError if the folder holds a run and `force` is not given.
        """
        folder = Path(folder)
        check_output(folder, force=force)
        files: dict[str, Write] = {name: self._writer(row, image) for name, (row, image) in self.files(stems).items()}
        if self.steered and self.plain is not None:
            files |= {self._named("plain", image): self._plain_writer(image) for image in range(self.recipe.images)}
        if len(files) > 1:
            files["comparison.png"] = lambda path: self.comparison().save(path, pnginfo=self._info(0, 0, sheet=1))
        for name, text in (pages or {}).items():
            files[name] = lambda path, text=text: path.write_text(text, "utf-8")
        # the last says that a run is there
        if self.recipe.targets or self.steered:
            name = "edit.json" if self.recipe.targets and not stems else f"{STEERED}.json"
            files[name] = lambda path: path.write_text(as_json(self.record, indent=1) + "\n", "utf-8")
        else:
            files[f"{ALONE}.png"] = files.pop(f"{ALONE}.png")
        return write_files(folder, files, without=EARLIER if force else ())

    def _plain_writer(self, image: int) -> Write:
        assert self.plain is not None
        picture = Image.fromarray(self.plain[0, image])
        return lambda path: picture.save(path, pnginfo=self._info(0, image, plain=1))

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
        return as_html(self.comparison(), self.recipe.told)


def check_output(folder: Path, *, force: bool = False) -> None:
    """Raise before any work is done if results cannot be written to `folder`."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"Results go to a folder, and {folder} is a file. Choose another with -o.")
    if not force and any((folder / name).exists() for name in RUNS):
        raise FileExistsError(
            f"{folder} already holds a run. Choose another folder with -o, or replace it with --force."
        )
    check_folder(folder)

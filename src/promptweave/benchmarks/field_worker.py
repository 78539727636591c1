"""Whoever works on a benchmark: takes a group of edits, makes those that are not done, judges and writes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from promptweave.benchmarks.field_editors import Way, call_of
from promptweave.benchmarks.field_folder import RunFolder, slug
from promptweave.benchmarks.field_judges import Judges
from promptweave.core.files import CannotWrite
from promptweave.editing.edit import edit, generate
from promptweave.editing.fitting import covered
from promptweave.editing.invert import invert
from promptweave.editing.inverted_file import InvertedImage
from promptweave.editing.jobs import sentence
from promptweave.editing.plan import fitted_image
from promptweave.editing.result import Result
from promptweave.editing.settings import Settings
from promptweave.evaluate.edit_pairs import EditPair
from promptweave.evaluate.edit_rows import EditRow
from promptweave.evaluate.judges import Case
from promptweave.evaluate.pie_bench import framed
from promptweave.models.base import Model

PAUSE = 2.0  # seconds between looks at groups that others work on


@dataclass(frozen=True)
class Unit:
    """One edit. `inversion` is empty where there is none. `key`: the folder of its way."""

    pair: EditPair
    inversion: str
    way: Way
    key: str = field(init=False)

    def __post_init__(self) -> None:
        said = ", ".join(f"{name} {value}" for name, value in self.way.shown.items())
        object.__setattr__(self, "key", slug(f"{self.inversion or 'own'}+{self.way.editor} {said}".strip()))

    @property
    def group(self) -> str:
        """What shares an inversion."""
        return f"{self.pair.name} {self.inversion}"


@dataclass(frozen=True, eq=False)
class Worker:
    """One process at work. `retry`: whether edits that failed are tried again."""

    benchmark: str
    model: Model
    settings: Settings
    folder: RunFolder
    judges: Judges
    retry: bool = False

    @property
    def header(self) -> dict[str, Any]:
        """What all edits of a folder share."""
        shared = {
            name: getattr(self.settings, name) for name in ("seed", "steps", "guidance", "size", "negative", "fit")
        }
        return {
            "benchmark": self.benchmark, "model": self.model.name, "weights": self.model.fingerprint(),
            "scheduler": self.model.scheduler, **shared,
        }  # fmt: skip

    def settings_of(self, way: Way) -> Settings:
        """The settings of a way's runs."""
        return replace(self.settings, **way.settings)

    def work(self, units: Sequence[Unit], done: Callable[[EditRow | None], object]) -> None:
        """Make all edits that are not done, and wait for those that others make. Calls `done` once for each; with None
        for those that were done before."""
        groups: dict[str, list[Unit]] = {}
        for unit in units:
            groups.setdefault(unit.group, []).append(unit)
        while groups:
            left: dict[str, list[Unit]] = {}
            for name, group in groups.items():
                waiting = [unit for unit in group if not self._done(unit)]
                for _ in range(len(group) - len(waiting)):
                    done(None)
                if waiting:
                    with self.folder.alone(name) as mine:
                        if mine:
                            self._group(waiting, done)
                        else:
                            left[name] = waiting
            if len(left) == len(groups):
                time.sleep(PAUSE)
            groups = left

    def case(self, unit: Unit, source: np.ndarray | None, made: np.ndarray) -> Case:
        """What judges see of an edit: mask and goal go the way of the image."""
        pair, mask, goal = unit.pair, None, None
        settings = self.settings_of(unit.way)
        if pair.mask is not None and source is not None:
            mask = self._brought(unit, pair.mask(), (made.shape[0], made.shape[1]))
        if pair.goal is not None and source is not None:
            _, picture = fitted_image(self.model, pair.goal, replace(settings, size=(made.shape[0], made.shape[1])))
            goal = None if picture is None else picture.pixels()
        seen = framed(mask) if mask is not None and pair.framed else mask
        return Case(source, made, pair.source, pair.target or pair.source, mask, seen, goal)

    def _brought(self, unit: Unit, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """A mask in the pixels of the result."""
        if unit.pair.image is None:
            return covered(mask, size)
        _, picture = fitted_image(self.model, unit.pair.picture, self.settings_of(unit.way))
        assert picture is not None
        return picture.fitting.mask(mask)

    def _done(self, unit: Unit) -> bool:
        row = self.folder.row(unit.key, unit.pair.name)
        if row is None:
            return False
        if (row.source, row.target) != (unit.pair.source, unit.pair.target):
            raise FileExistsError(
                f"{self.folder.path} holds an edit of {unit.pair.name} with other prompts: the data has changed. "
                "Choose another folder with -o."
            )
        return not self.retry if row.failure else not self.judges.owe(dict(row.figures))

    def _group(self, units: Sequence[Unit], done: Callable[[EditRow | None], object]) -> None:
        """The edits of one inversion of an image."""
        inverted: dict[Settings, tuple[InvertedImage, float]] = {}
        for unit in units:
            if self._done(unit):  # by somebody else, since we looked
                done(None)
                continue
            row = self.folder.row(unit.key, unit.pair.name)
            if row is not None and not row.failure:
                source, made = (self.folder.image(row, name) for name in ("source", "edit"))
                assert made is not None
                figures = self.judges.of(self.case(unit, source, made), dict(row.figures))
                done(self.folder.write(unit.key, replace(row, figures=figures), {}, given=False))
                continue
            done(self._edit(unit, inverted))

    def _edit(self, unit: Unit, inverted: dict[Settings, tuple[InvertedImage, float]]) -> EditRow:
        """Make one edit, judge it and write it."""
        pair, way = unit.pair, unit.way
        row = EditRow(
            self.benchmark, pair.name, pair.category, way.editor, unit.inversion, self.model.name, pair.source,
            pair.target, self.settings.seed or 0, way.shown, way.strength,
        )  # fmt: skip
        begin = time.perf_counter()
        try:
            result, before, figures = self._made(unit, inverted)
        except CannotWrite:
            raise
        except (ValueError, TypeError, OSError) as error:
            return self.folder.write(unit.key, replace(row, failure=sentence(error)), {}, given=False)
        seconds = time.perf_counter() - begin + before
        pictures, picture = result.sample.pictures[:, 0], result.recipe.root.picture
        source = None if not pair.target else pictures[0] if picture is None else picture.pixels()
        figures |= self.judges.of(self.case(unit, source, pictures[-1]))
        images = {"edit": pictures[-1]} if source is None else {"source": source, "edit": pictures[-1]}
        row = replace(row, figures=figures, seconds=round(seconds, 4))
        return self.folder.write(unit.key, row, images, given=pair.image is not None)

    def _made(
        self, unit: Unit, inverted: dict[Settings, tuple[InvertedImage, float]]
    ) -> tuple[Result, float, dict[str, float]]:
        """The run of an edit, the seconds of an inversion that was made before, and the figures of the inversion."""
        pair, settings = unit.pair, self.settings_of(unit.way)
        call = call_of(unit.way, pair, self.model)
        if not call.targets:
            return generate(pair.source, model=self.model, controls=call.controls or (), settings=settings), 0.0, {}
        if not unit.inversion:
            made = edit(
                pair.source, *call.targets, model=self.model, controls=call.controls, image=pair.picture,
                settings=settings, **call.options,
            )  # fmt: skip
            return made, 0.0, {}
        before = 0.0
        if settings in inverted:
            before = inverted[settings][1]
        else:
            begin, image = time.perf_counter(), pair.picture
            assert image is not None
            known = invert(pair.source, image, model=self.model, inversion=unit.inversion, settings=settings)
            inverted[settings] = known, time.perf_counter() - begin
        known = inverted[settings][0]
        made = edit(known, *call.targets, model=self.model, controls=call.controls, **call.options)
        return made, before, {"psnr_inversion": known.psnr}

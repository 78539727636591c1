"""The counterfactual benchmark: edits of images whose exact counterfactual, and where it differs, is known.

Pairs are those of `world.counterfactuals`. A source is drawn, given to the model as any photo is, or generated from its
prompt; then there is no counterfactual image, and where the things are is what the oracle sees. A row is one edit
(`evaluate.edit_rows`); `FIGURES` says what is measured of it. Rows are kept in a folder, file by file of a few pairs,
so that a run goes on where it was ended, and several processes may share the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from promptweave.benchmarks.field_folder import RunFolder, slug
from promptweave.benchmarks.judging import oracle
from promptweave.benchmarks.swept import Method, methods_of
from promptweave.benchmarks.world_edits import Runs, made_edits
from promptweave.editing.edit import run_many
from promptweave.editing.plan import usual
from promptweave.editing.recipe import Recipe
from promptweave.evaluate.edit_rows import EditRow, read_edit_rows, write_edit_rows
from promptweave.evaluate.metrics import psnr
from promptweave.evaluate.similarity import feature_distance, structure_distance
from promptweave.evaluate.structural_similarity import ssim
from promptweave.models.base import Model
from promptweave.world.counterfactuals import MARGIN, PROMPTED, Counterfactual, counterfactuals, grown
from promptweave.world.oracle import Sight

DRAWN, GENERATED = "drawn", "generated"
SOURCES = (DRAWN, GENERATED)
EIGHTH = 1  # index of the oracle's features whose self-similarity is the structure
FIGURES: Mapping[str, str] = {
    "success": "the oracle sees the edit: new things in their colours, none that should go, a new background or style",
    "psnr_outside": "PSNR in dB to the source outside the true region",
    "ssim_outside": "SSIM to the source outside the true region",
    "structure_oracle": "distance of the self-similarities of the oracle's features from the source's, whole image",
    "psnr_goal": "PSNR in dB to the counterfactual, whole image",
    "ssim_goal": "SSIM to the counterfactual, whole image",
    "distance_goal": "perceptual distance to the counterfactual, by the oracle's features",
}


@dataclass(frozen=True)
class Settings:
    """What all rows of a model in a folder have in common. `batch`: pairs that share forward passes."""

    model: str
    steps: int
    guidance: int | float
    seed: int = 5000
    split: str = "test"
    kinds: tuple[str, ...] = PROMPTED
    batch: int = 8


@dataclass(frozen=True)
class Unit:
    """A part of the work: a method at some strengths, on the pairs from `first` on, as many as a batch has."""

    source: str
    method: Method
    values: tuple[float, ...]
    first: int

    @property
    def key(self) -> str:
        """The name of its file of rows and of its lock, whatever the strengths."""
        return slug(f"{self.source} {self.method.name} {self.first:04d}")


def units(methods: Sequence[Method], sources: Sequence[str], count: int, batch: int, *, sweep: bool) -> list[Unit]:
    """All parts of a run; first those of the first pairs, so that one that is ended early has something of each."""
    return [
        Unit(source, method, method.all_values if sweep else (method.usual,), first)
        for first in range(0, count, batch)
        for source in sources
        for method in methods
        if source == DRAWN or not method.masked
    ]


def bench_world(
    model: Model, folder: Path, methods: Sequence[str] = (), *, count: int | None = None,
    sources: Sequence[str] = (DRAWN,), split: str = "test", kinds: Sequence[str] = PROMPTED, steps: int | None = None,
    guidance: int | float | None = None, seed: int = 5000, batch: int = 8, sweep: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> list[EditRow]:  # fmt: skip
    """The rows of the first `count` pairs (None: all) of a split under these methods (default: all that suit the
    model), at their usual strength or, with `sweep`, at all values of it.

    Rows that `folder` has already are not made anew, and parts that another process is making are left to it.
    `progress` is told of each part how many pairs it has. Returns the rows in the folder. Raises ValueError for unknown
    names, FileExistsError for a folder whose rows of this model have other settings.
    """
    for source in sources:
        if source not in SOURCES:
            raise ValueError(f"Sources are {' and '.join(SOURCES)}. Received {source!r}.")
    steps, guidance = usual(model, steps, guidance)
    pairs = counterfactuals(split, kinds=tuple(kinds), count=count)
    settings = Settings(model.name, steps, guidance, seed, split, tuple(kinds), batch)
    chosen = methods_of(model, steps, guidance, methods)
    run = RunFolder(folder / slug(model.name))
    run.open({"benchmark": "world", "weights": model.fingerprint(), **asdict(settings)})
    for unit in units(chosen, sources, len(pairs), batch, sweep=sweep):
        asked, path = pairs[unit.first : unit.first + batch], run.path / "rows" / f"{unit.key}.jsonl"
        with run.alone(unit.key) as free:
            if free:
                made = read_edit_rows(path) if path.is_file() else []
                missing = tuple(value for value in unit.values if value not in _whole(made, len(asked)))
                if missing:
                    kept = [row for row in made if row.strength not in missing]
                    write_edit_rows(path, [*kept, *measured(model, replace(unit, values=missing), asked, settings)])
        if progress:
            progress(len(asked))
    return read_rows(run.path)


def read_rows(folder: Path) -> list[EditRow]:
    """The rows of a folder, one model's or several. Raises FileNotFoundError if there are none."""
    rows = [row for path in sorted(folder.rglob("rows/*.jsonl")) for row in read_edit_rows(path)]
    if not rows:
        raise FileNotFoundError(f"{folder} has no rows. Run the benchmark first.")
    return rows


def _whole(rows: Sequence[EditRow], count: int) -> set[float]:
    """The strengths of which all pairs are there."""
    found = [row.strength for row in rows if row.strength is not None]
    return {value for value in found if found.count(value) >= count}


@dataclass(frozen=True, eq=False)
class Seen:
    """A source, uint8 [128, 128, 3], as the oracle sees it; `wanted`: its features of the counterfactual."""

    image: np.ndarray
    sight: Sight
    features: tuple[Any, ...]
    wanted: tuple[Any, ...] | None


@lru_cache(maxsize=32)
def sources(model: Model, source: str, pairs: tuple[Counterfactual, ...], settings: Settings) -> tuple[Seen, ...]:
    """The sources of pairs, drawn or generated."""
    images = [pair.drawn for pair in pairs] if source == DRAWN else generated(model, pairs, settings)
    wanted = oracle().look_closely(np.stack([pair.wanted for pair in pairs])) if source == DRAWN else None
    return tuple(
        Seen(image, sight, features, None if wanted is None else wanted[place][1])
        for place, (image, (sight, features)) in enumerate(
            zip(images, oracle().look_closely(np.stack(images)), strict=True)
        )
    )


def measured(model: Model, unit: Unit, pairs: Sequence[Counterfactual], settings: Settings) -> Iterator[EditRow]:
    """The rows of a unit. A pair that the method cannot be asked for, or that it has no effect on, is a failure."""
    begun = sources(model, unit.source, tuple(pairs), settings)
    runs = Runs(settings.steps, settings.guidance, settings.seed, unit.source == DRAWN)
    edits = made_edits(model, unit.method, unit.values, pairs, [seen.image for seen in begun], runs)
    for value in unit.values:
        figures = judged(pairs, begun, [edit[value].image for edit in edits])
        for pair, edit, found in zip(pairs, edits, figures, strict=True):
            made = edit[value]
            yield EditRow(
                f"world, {unit.source}", pair.name, pair.kind, unit.method.name, made.inversion, model.name,
                pair.source, pair.target, settings.seed + pair.number, unit.method.settings(value), value, found,
                seconds=made.seconds, failure=made.failure,
            )  # fmt: skip


def generated(model: Model, pairs: Sequence[Counterfactual], settings: Settings) -> list[np.ndarray]:
    """The images of the sources' prompts, uint8 [height, width, 3]."""
    recipes = [
        Recipe(
            pair.source, seed=settings.seed + pair.number, steps=settings.steps, guidance=settings.guidance,
            model=model.name, scheduler=model.scheduler,
        )
        for pair in pairs
    ]  # fmt: skip
    return [result.sample.pictures[0, 0] for result in run_many(recipes, model)]


def judged(
    pairs: Sequence[Counterfactual], begun: Sequence[Seen], edits: Sequence[np.ndarray | None]
) -> list[dict[str, float]]:
    """The figures of edits, uint8 [128, 128, 3]; none where there is no edit."""
    known = [edit for edit in edits if edit is not None]
    looks = iter(oracle().look_closely(np.stack(known)) if known else ())
    return [
        {} if edit is None else _figures(pair, seen, edit, *next(looks))
        for pair, seen, edit in zip(pairs, begun, edits, strict=True)
    ]


def _figures(
    pair: Counterfactual, seen: Seen, edit: np.ndarray, sight: Sight, features: tuple[Any, ...]
) -> dict[str, float]:
    outside = _unchanged(pair, seen.sight, sight) if seen.wanted is None else ~pair.region
    figures = {
        "success": float(pair.success(sight)),
        "psnr_outside": psnr(seen.image, edit, outside),
        "ssim_outside": ssim(seen.image, edit, outside),
        "structure_oracle": structure_distance(seen.features[EIGHTH], features[EIGHTH]),
    }
    if seen.wanted is None:
        return figures
    return figures | {
        "psnr_goal": psnr(pair.wanted, edit),
        "ssim_goal": ssim(pair.wanted, edit),
        "distance_goal": feature_distance(seen.wanted, features),
    }


def _unchanged(pair: Counterfactual, before: Sight, after: Sight) -> np.ndarray:
    """What should stay of a generated image: all outside the changed things as the oracle sees them before and after;
    of one with another background its things; of another style nothing."""
    if pair.scene.style != pair.other.style:
        return np.zeros_like(pair.region)
    if pair.scene.background != pair.other.background:
        return np.any([before.regions[thing.noun] for thing in pair.scene.things], 0)
    regions = [sight.regions[noun] for sight in (before, after) for noun in pair.nouns]
    return ~grown(np.any(regions, 0), MARGIN)

"""Benchmarks of editing on data sets of the field: editors x inversions x settings, edit by edit, resumable.

`benchmark` is the public function. Its work is cut into groups, all edits of one image under one inversion, which is
computed once. Whoever works on a folder takes the lock of a group, makes the edits that are not done, and writes each
when it is made (`field_folder`); so a stopped run, or several at once, neither lose nor repeat an edit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from promptweave.benchmarks.field_editors import Grid, Way, call_of, read_ways
from promptweave.benchmarks.field_folder import RunFolder
from promptweave.benchmarks.field_judges import find_judges
from promptweave.benchmarks.field_worker import Unit, Worker
from promptweave.core.shown import brief
from promptweave.core.typed import checked
from promptweave.editing.inversions import read_inversion
from promptweave.editing.jobs import sentence
from promptweave.editing.plan import bind, plan
from promptweave.editing.settings import RunOptions, Settings, split
from promptweave.editing.who_reads import Unread
from promptweave.evaluate.data_sets import read_data
from promptweave.evaluate.edit_pairs import BadData, EditPair, check_names
from promptweave.evaluate.edit_rows import EditRow, Means
from promptweave.evaluate.published_rows import comparison, published_source
from promptweave.models.base import Model
from promptweave.models.load import load_cached

SEED = 1234  # of PIE-Bench, anew for each image
TRIED = 5  # pairs on which a way is planned before anything runs


@dataclass(frozen=True)
class Evaluation:
    """What a benchmark found. `rows`: one for each edit that is done; `means`: one for each way of editing; `missing`:
    a sentence for each judge that could not run; `folder`: where all of it is, and the images."""

    benchmark: str
    rows: list[EditRow]
    means: list[Means]
    missing: tuple[str, ...]
    folder: Path

    def __repr__(self) -> str:
        return brief(self, self.benchmark, f"{len(self.rows)} edits", f"{len(self.means)} ways", str(self.folder))

    @property
    def compared(self) -> tuple[list[str], list[list[str]]]:
        """Head and lines of a table of the means; for PIE-Bench the published row of the same kind is under each."""
        return comparison(self.means, published=self.benchmark == "pie")

    @property
    def source(self) -> str:
        """Where the published rows are from; empty if none stands in the table."""
        return published_source() if self.benchmark == "pie" else ""


@checked
def benchmark(
    data: Path | str | Sequence[EditPair],
    *,
    editors: Sequence[str] = ("p2p",),
    inversions: Sequence[str] = (),
    grid: Mapping[str, Sequence[Any]] | None = None,
    model: Model | str = "toybox",
    output: Path | str = "out/pie",
    settings: Settings | None = None,
    kinds: Sequence[str] = (),
    limit: int | None = None,
    judges: Path | str | None = None,
    retry: bool = False,
    progress: Callable[..., Any] | None = None,
    **options: Unpack[RunOptions],
) -> Evaluation:
    """Edit and judge a data set: every pair with each editor under each inversion and each combination of `grid`.

    `data`: a folder or file that `evaluate.data_sets.read_data` knows, or pairs. `editors`: names and options,
    "replace:cross=0.4" (`field_editors`). `inversions`: names and options; by default each editor's own. `grid`: option
    -> values, for the editors that have it. `kinds`: only these categories of the data. `limit`: only the first so many
    pairs. `judges`: the folder with the weights of judges, which are otherwise looked for in the local cache; those
    that are not there are left out. Options: the fields of `Settings` for all runs, as keywords or as `settings`; the
    seed, 1234 by default, is the same for every image.

    A run that was stopped goes on when it is called again, and several processes may share `output`. Edits that failed
    are rows with a `failure`; `retry` tries them again. `progress(row, count)` is called after each of `count` edits,
    with None for those that were done before. Raises ValueError for editors, options or values that there are not,
    BadData for data that cannot be read, FileExistsError for an output folder with another run.
    """
    chosen = (settings or Settings()).with_(*split("benchmark", options, Settings))
    worker, units = prepared(
        data, editors=editors, inversions=inversions, grid=grid, model=model, output=output, settings=chosen,
        kinds=kinds, limit=limit, judges=judges, retry=retry,
    )  # fmt: skip
    worker.work(units, (lambda row: None) if progress is None else lambda row: progress(row, len(units)))
    return gathered(worker.benchmark, worker.folder, [(one.key, one.pair.name) for one in units], worker.judges.missing)


def prepared(
    data: Path | str | Sequence[EditPair], *, editors: Sequence[str], inversions: Sequence[str] = (),
    grid: Grid | None = None, model: Model | str, output: Path | str, settings: Settings | None = None,
    kinds: Sequence[str] = (), limit: int | None = None, judges: Path | str | None = None, retry: bool = False,
) -> tuple[Worker, list[Unit]]:  # fmt: skip
    """A process at work on a benchmark, and all its edits; everything is checked. See `benchmark`."""
    name, pairs = read_pairs(data, kinds, limit)
    ways = check_asked(editors, inversions, grid)
    network = load_cached(model) if isinstance(model, str) else model
    chosen = settings or Settings()
    if (chosen.images or 1) != 1 or chosen.keep_original:
        raise ValueError(
            "A benchmark makes one image of each pair, in the model's size. Leave images and keep_original out."
        )
    chosen = replace(chosen, seed=SEED if chosen.seed is None else chosen.seed)
    worker = Worker(name, network, chosen, RunFolder(output), find_judges(judges, network.device), retry)
    units = units_of(pairs, ways, inversions, worker)
    worker.folder.open(worker.header)
    return worker, units


def gathered(
    benchmark: str, folder: RunFolder, edits: Sequence[tuple[str, str]], missing: tuple[str, ...]
) -> Evaluation:
    """What was found about edits, by way and pair; the tables of the folder are written."""
    rows = [row for key, name in edits if (row := folder.row(key, name)) is not None]
    return Evaluation(benchmark, rows, folder.gather(rows), missing, folder.path)


def check_asked(editors: Sequence[str], inversions: Sequence[str], grid: Grid | None = None) -> list[Way]:
    """The ways of editing. Raises ValueError for editors, inversions, options or values that there are not."""
    for text in inversions:
        read_inversion(text)
    return read_ways(editors, grid)


def units_of(pairs: Sequence[EditPair], ways: Sequence[Way], inversions: Sequence[str], worker: Worker) -> list[Unit]:
    """All edits, those of one inversion of an image after each other.

    Raises what is wrong with a way whatever the pair: Unread, or the error of the first pairs if none can be planned.
    """
    named = tuple(dict.fromkeys(read_inversion(text).spec for text in inversions))
    under = [_inversions(way, pairs, named, worker) for way in ways]
    every = list(dict.fromkeys(name for names in under for name in names))
    return [
        Unit(pair, inversion if pair.image is not None else "", way)
        for pair in pairs
        for inversion in every
        for way, names in zip(ways, under, strict=True)
        if inversion in names and (pair.image is not None or inversion == names[0])
    ]


def _inversions(way: Way, pairs: Sequence[EditPair], named: tuple[str, ...], worker: Worker) -> tuple[str, ...]:
    """The inversions under which a way is run: none for one that starts from the image itself."""
    failed = ""
    for pair in pairs[:TRIED]:
        if not pair.target:
            if way.alone or way.editor == "none":
                return ("",)
            raise ValueError(f"{way.editor} edits pairs, and the data has prompts alone. Choose other editors or data.")
        if way.alone:
            raise ValueError(f"{way.editor} takes one prompt, and the data has pairs. Choose other editors or data.")
        try:
            call = call_of(way, pair, worker.model)
            planned = plan(
                pair.source, call.targets, worker.model, call.options, worker.settings_of(way),
                controls=call.controls, image=pair.picture,
            )  # fmt: skip
            bind(planned, worker.model)
        except Unread:
            raise
        except (ValueError, TypeError, OSError) as error:
            failed = failed or sentence(error)
            continue
        if pair.image is None or any("noise" not in control.needs for control in planned.controls):
            return ("",)
        return named or (planned.inversion,)
    raise ValueError(f"{way.editor} can edit none of the first {len(pairs[:TRIED])} pairs: {failed}")


def read_pairs(
    data: Path | str | Sequence[EditPair], kinds: Sequence[str], limit: int | None
) -> tuple[str, list[EditPair]]:
    """The name of the data, and the pairs that are wanted."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit is a number of pairs, at least 1. Received {limit}.")
    if isinstance(data, str | Path):
        name, pairs = read_data(data, kinds)
        return name, pairs[:limit]
    pairs = check_names(list(data), Path("the list"))
    if kinds:
        raise BadData("kinds choose among the categories of a data set on disk. Choose the pairs of a list yourself.")
    return "own", pairs[:limit]

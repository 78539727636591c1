"""The command `promptweave bench pie`, and `report`, the page of its runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from promptweave.apps.bench_app import OPENING, SPEAKING, bench
from promptweave.apps.common import SETTINGS, Opening, Speaking
from promptweave.apps.flags import Flags, command
from promptweave.apps.terminal import table
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Field:
    """What `bench pie` edits, how, and where."""

    data: Annotated[
        Path | None,
        Option(
            "Data set: PIE-Bench, TEdBench, MagicBrush, folders with edit.json, a CSV file, lists of prompts.",
            group="What changes", metavar="DIR",
        ),
    ] = None  # fmt: skip
    drawn: Annotated[
        int | None,
        Option(
            "Without --data: draw so many pairs of the embedded world in PIE-Bench's layout, and use them.",
            low=1, group="What changes", metavar="PAIRS",
        ),
    ] = None  # fmt: skip
    editors: Annotated[
        tuple[str, ...],
        Option(
            "Editors: none, p2p (as published), replace, refine, masactrl, pnp, translate, flow, inpaint ...",
            group="What changes", metavar="NAME[:OPTION=VALUE,...]",
        ),
    ] = ("p2p",)  # fmt: skip
    inversions: Annotated[
        tuple[str, ...],
        Option(
            "Inversions: direct, ddim, null-text, negative-prompt ... [each editor's own]",
            group="What changes", metavar="NAME[:OPTION=VALUE,...]",
        ),
    ] = ()  # fmt: skip
    grid: Annotated[
        tuple[str, ...],
        Option(
            "Values of an option, for the editors that have it: each combination is run.",
            group="What changes", metavar="OPTION=VALUE,...",
        ),
    ] = ()  # fmt: skip
    kinds: Annotated[
        tuple[str, ...],
        Option("Only this kind of edits, by number or name.", group="What changes", flag="--kind", metavar="KIND"),
    ] = ()
    limit: Annotated[int | None, Option("Only the first so many pairs. [all]", low=1, group="What changes")] = None
    judges: Annotated[
        Path | None,
        Option(
            "Folder with clip-vit-large-patch14/, dino-vitb8/ and squeezenet1_1-b8a52dc0.pth. [the local cache]",
            group="Model", metavar="FOLDER",
        ),
    ] = None  # fmt: skip
    retry: Annotated[bool, Option("Try edits again that failed before.", group="Advanced")] = False
    ray: Annotated[
        int | None,
        Option("Workers on the machines of a Ray cluster, or on this one (extra 'batch').", low=1, group="Advanced"),
    ] = None
    output: Annotated[
        Path, Option("Folder of the run; an earlier run in it goes on.", group="Output", short="o", metavar="FOLDER")
    ] = Path("out/pie")


FIELD = Flags(Field)
FIELD_SETTINGS = Flags(SETTINGS.kind, without=("images", "keep_original", "truncate"))


@bench.command
@command(asked=FIELD, settings=FIELD_SETTINGS, opening=OPENING, speaking=SPEAKING)
def pie(*, asked: Field, settings: dict[str, Any], opening: Opening, speaking: Speaking) -> None:
    """Edit and judge PIE-Bench or other data: editors x inversions x settings; a stopped run goes on."""
    from promptweave.benchmarks.field_editors import read_grid, split_names
    from promptweave.benchmarks.field_run import benchmark, check_asked, read_pairs
    from promptweave.editing.settings import Settings

    terminal, editors, inversions = speaking.terminal, split_names(asked.editors), split_names(asked.inversions)
    grid = read_grid(asked.grid)
    check_asked(editors, inversions, grid)
    data = _data(asked)
    _, pairs = read_pairs(data, asked.kinds, asked.limit)
    notes = [pair.note for pair in pairs if pair.note]
    terminal.say(*(f"{note} ({notes.count(note)} pairs)" for note in dict.fromkeys(notes)))
    how: dict[str, Any] = {
        "editors": editors, "inversions": inversions, "grid": grid, "output": asked.output,
        "settings": Settings(**settings), "kinds": asked.kinds, "limit": asked.limit, "judges": asked.judges,
        "retry": asked.retry,
    }  # fmt: skip
    with terminal.bar() as bar:
        task = bar.add_task("editing", total=None)
        how["progress"] = lambda row, total: bar.update(task, advance=1, total=total)
        if asked.ray is None:
            found = benchmark(data, model=opening.load(), **how)
        else:
            from promptweave.benchmarks.field_ray import benchmark_on_ray

            found = benchmark_on_ray(data, opening.load, workers=asked.ray, **how)
    terminal.give({"folder": str(found.folder), "missing": found.missing, "means": [vars(one) for one in found.means]})
    head, lines = found.compared
    terminal.say(table(f"{found.benchmark}, {opening.model}: means over the pairs", head, lines))
    terminal.say(*([f"published: {found.source}"] if found.source else []), *found.missing)
    failed = sum(one.failures for one in found.means)
    if failed:
        first = next(row for row in found.rows if row.failure)
        terminal.say(f"{failed} edits failed, the first of them {first.method} of {first.pair}: {first.failure}")
    terminal.say(f"wrote {found.folder}; see it with: promptweave report {found.folder}")


def _data(asked: Field) -> Path:
    """The data set, drawn if that is asked for."""
    if (asked.data is None) == (asked.drawn is None):
        raise ValueError(
            "A benchmark has data: give --data DIR, or --drawn PAIRS for a miniature. Received both or none."
        )
    if asked.data is not None:
        return asked.data
    from promptweave.benchmarks.drawn_data import drawn_pie_bench

    assert asked.drawn is not None
    return drawn_pie_bench(asked.output.with_name(f"{asked.output.name}-data-{asked.drawn}"), asked.drawn)


@dataclass(frozen=True)
class Page:
    """The page of a run."""

    output: Annotated[
        Path | None, Option("File to write. [report.html in the folder]", group="Output", short="o", metavar="FILE")
    ] = None
    shown: Annotated[
        int, Option("How many of the best and of the worst edits of each way are on the page.", low=0, group="Output")
    ] = 6


@command(asked=Flags(Page), speaking=SPEAKING)
def report(
    folder: Annotated[Path, Parameter(help="Folder of a benchmark.")], /, *, asked: Page, speaking: Speaking
) -> None:
    """Write the page of a benchmark: table, curves, the best and worst edits, filters; one file that opens anywhere."""
    from promptweave.benchmarks.run_report import write_run_report

    path = write_run_report(folder, asked.output, shown=asked.shown)
    speaking.terminal.give({"file": str(path)})
    speaking.terminal.say(f"wrote {path}")

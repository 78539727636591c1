"""The commands of `promptweave bench` that measure methods, inversions and the web page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from promptweave.apps.bench_app import OPENING, SPEAKING, bench
from promptweave.apps.commands_net2net import RECIPE
from promptweave.apps.common import Opening, Speaking
from promptweave.apps.flags import Flags, command
from promptweave.apps.terminal import table
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Seeded:
    """The runs of `bench methods`."""

    count: Annotated[int, Option("Seeded prompts per method.", low=1, group="What changes")] = 100
    steps: Annotated[int, Option("Sampling steps.", low=1, group="Image")] = 20
    guidance: Annotated[float | None, Option("Guidance scale. [the model's own]", low=0, group="Image")] = None
    seed: Annotated[int, Option("Seed of the prompts and of the noise.", low=0, group="Image", short="s")] = 5000


@dataclass(frozen=True)
class Visits:
    """The load of `bench page`."""

    minutes: Annotated[float, Option("Minutes that the visitors stay.", low=1, group="What changes")] = 15.0
    clients: Annotated[int, Option("Visitors at a time.", low=1, group="What changes")] = 4
    model: Annotated[str, Option("toybox-fast, a folder ...", group="Model", short="m")] = "toybox-fast"
    output: Annotated[
        Path | None, Option("Picture of memory and files over the time.", group="Output", short="o", metavar="FILE")
    ] = None


@dataclass(frozen=True)
class Compared:
    """What `bench net2net` compares."""

    folder: Annotated[Path, Option("Folder of `net2net train`.", group="Model", metavar="FOLDER")] = Path(
        "runs/net2net"
    )
    count: Annotated[int, Option("Scenes of each measure.", low=4, group="What changes")] = 60
    repeats: Annotated[int, Option("Seeds of weights and batches.", low=1, group="What changes")] = 3
    device: Annotated[str, Option("cpu, cuda ...", group="Model", metavar="DEVICE")] = "cpu"


@bench.command
@command(asked=Flags(Compared), recipe=RECIPE, speaking=SPEAKING)
def net2net(*, asked: Compared, recipe: dict[str, Any], speaking: Speaking) -> None:
    """Flows against conditional autoencoders of equal size, trained alike and judged by the oracle."""
    from promptweave.benchmarks import bench_net2net
    from promptweave.translation.train_flows import FlowTraining

    terminal, rounds = speaking.terminal, 2 * asked.count * asked.repeats
    with terminal.progress("translating", rounds * 3) as advance:
        found = bench_net2net.bench_net2net(
            asked.folder, FlowTraining(**recipe), count=asked.count, repeats=asked.repeats, device=asked.device,
            progress=advance,
        )  # fmt: skip
    terminal.give(found)
    for name, kinds in found.items():
        first = next(iter(kinds.values()))
        lines = [
            (figure, *(f"{one[figure]:.3f} +- {one[f'{figure} +-']:.3f}" for one in kinds.values()))
            for figure in first
            if not figure.endswith("+-")
        ]
        terminal.say(table(f"{name}: {asked.count} unseen scenes, {asked.repeats} seeds", ("", *kinds), lines))


@bench.command
@command(asked=Flags(Visits), speaking=SPEAKING)
def page(*, asked: Visits, speaking: Speaking) -> None:
    """Does the web page stay within its memory and files? Visitors work on it; it must stay flat within 3 %."""
    from dataclasses import asdict

    from promptweave.benchmarks import bench_page

    terminal = speaking.terminal
    with terminal.progress("visiting", round(60 * asked.minutes / bench_page.PAUSE)) as advance:
        moments = bench_page.soak(asked.minutes, asked.clients, model=asked.model, progress=advance)
    terminal.give([asdict(moment) for moment in moments])
    third = moments[-1].seconds / 3
    titles = ("", *(f"{third * part / 60:.3g} to {third * (part + 1) / 60:.3g} min" for part in range(3)), "growth")
    lines = [(g.what, *(f"{value:.0f}" for value in g.thirds), f"{g.share:+.1%}") for g in bench_page.growth(moments)]
    title = f"{asked.clients} clients, {moments[-1].visits} visits; medians"
    terminal.say(table(title, titles, lines))
    if asked.output:
        bench_page.plot(moments).save(asked.output)
        terminal.say(f"wrote {asked.output}")
    bench_page.check(moments)


@bench.command(usage="Usage: promptweave bench methods [OPTIONS] [NAMES...]")
@command(asked=Flags(Seeded), opening=OPENING, speaking=SPEAKING)
def methods(
    *names: Annotated[str, Parameter(help="Methods to measure. [all]")],
    asked: Seeded,
    opening: Opening,
    speaking: Speaking,
) -> None:
    """Measure each method on its purpose, against plain generation with the same seeds."""
    from dataclasses import asdict

    from promptweave.benchmarks.bench_methods import MEASURES, bench_methods
    from promptweave.editing.plan import usual

    terminal, chosen, network = speaking.terminal, names or tuple(MEASURES), opening.load()
    count, steps, model = asked.count, asked.steps, opening.model
    strength = usual(network, steps, asked.guidance)[1]
    with terminal.progress("measuring", 2 * count * len(chosen)) as advance:
        figures = bench_methods(
            network, chosen, count=count, steps=steps, guidance=strength, seed=asked.seed, progress=advance
        )
    terminal.give({"figures": [asdict(figure) for figure in figures]})
    others = any(figure.beside is not None for figure in figures)
    columns = ("method", "what", "plain", "with it", *(["Prompt-to-Prompt"] if others else []), "images")
    lines = [
        (f.method, f.what, f"{f.plain:.3g}", f"{f.steered:.3g}",
         *(["" if f.beside is None else f"{f.beside:.3g}"] if others else []), str(f.count))
        for f in figures
    ]  # fmt: skip
    terminal.say(table(f"{model}, {steps} steps, guidance {strength:g}", columns, lines))


@dataclass(frozen=True)
class Inversions:
    """The pairs of `bench inversions`."""

    count: Annotated[int, Option("Drawn images.", low=1, group="What changes")] = 100
    first: Annotated[int, Option("The first of them to measure.", low=0, group="What changes")] = 0
    steps: Annotated[int, Option("Sampling steps.", low=1, group="Image")] = 20
    guidance: Annotated[float | None, Option("Guidance scale. [the model's own]", low=0, group="Image")] = None
    seed: Annotated[int, Option("Seed.", low=0, group="Image")] = 5000
    rows: Annotated[
        Path | None, Option("File to append the figures of each image to.", group="Output", metavar="FILE")
    ] = None
    pictures: Annotated[
        Path | None, Option("Folder for a sheet of each of the first images.", group="Output", metavar="FOLDER")
    ] = None


@dataclass(frozen=True)
class Crossed(Inversions):
    """The pairs, editors and batches of `bench inversions`."""

    editors: Annotated[
        str,
        Option("Editors, with semicolons between, or all.", group="What changes", metavar="NAME;..."),
    ] = "no control; Prompt-to-Prompt"  # fmt: skip
    batch: Annotated[int, Option("Pairs that share forward passes.", low=1)] = 1


@bench.command(usage="Usage: promptweave bench inversions [OPTIONS] [NAMES...]")
@command(asked=Flags(Crossed), opening=OPENING, speaking=SPEAKING)
def inversions(
    *names: Annotated[str, Parameter(help="Inversions to measure; also dds and cds. [all without gradients]")],
    asked: Crossed,
    opening: Opening,
    speaking: Speaking,
) -> None:
    """Measure inversions on drawn images: does the edit succeed, what stays, and what does it cost?"""
    from dataclasses import asdict

    from promptweave.benchmarks import bench_inversions
    from promptweave.benchmarks.drawn_swaps import editors_of
    from promptweave.editing.inversions import read_inversion, usual_inversions
    from promptweave.editing.plan import usual

    for name in set(names) - set(bench_inversions.OPTIMISED):
        read_inversion(name)
    terminal, network = speaking.terminal, opening.load()
    chosen = names or usual_inversions(network)
    editors = editors_of(network, [name.strip() for name in asked.editors.split(";") if name.strip()])
    strength = usual(network, asked.steps, asked.guidance)[1]
    found: list[bench_inversions.Row] = []
    shown: list[bench_inversions.Pictures] = []
    with terminal.progress("measuring", max(0, asked.count - asked.first) * len(chosen)) as advance:
        for rows, pictures in bench_inversions.bench_inversions(
            network, chosen, editors, count=asked.count, steps=asked.steps, guidance=strength, seed=asked.seed,
            first=asked.first, batch=asked.batch, progress=lambda: advance(None, None),
        ):  # fmt: skip
            found += rows
            if asked.rows:
                bench_inversions.write_rows(asked.rows, rows)
            if asked.pictures and pictures.pair < asked.first + 12:
                shown.append(pictures)
                bench_inversions.write_sheets(asked.pictures, shown, len(chosen))
    terminal.give({"rows": [asdict(row) for row in found]})
    terminal.say(
        table(
            f"{opening.model}, {asked.steps} steps, guidance {strength:g}",
            bench_inversions.COLUMNS,
            bench_inversions.cells(found),
        )
    )


@dataclass(frozen=True)
class Inpaintings:
    """The pairs of `bench inpainting`."""

    count: Annotated[int, Option("Drawn images of each kind.", low=1, group="What changes")] = 48
    first: Annotated[int, Option("The first of them to measure.", low=0, group="What changes")] = 0
    steps: Annotated[int, Option("Sampling steps.", low=1, group="Image")] = 25
    guidance: Annotated[float | None, Option("Guidance scale. [the model's own]", low=0, group="Image")] = None
    seed: Annotated[int, Option("Seed.", low=0, group="Image")] = 5000
    pictures: Annotated[
        Path | None, Option("Folder for sheets of the first twelve images.", group="Output", metavar="FOLDER")
    ] = None


@bench.command
@command(asked=Flags(Inpaintings), opening=OPENING, speaking=SPEAKING)
def inpainting(*, asked: Inpaintings, opening: Opening, speaking: Speaking) -> None:
    """Measure inpainting beside Prompt-to-Prompt on drawn images: what does a mask lose, what does it keep?"""
    from dataclasses import asdict

    from promptweave.benchmarks import bench_inpainting
    from promptweave.editing.plan import usual

    terminal, network = speaking.terminal, opening.load()
    strength = usual(network, asked.steps, asked.guidance)[1]
    changes: tuple[bench_inpainting.Change, ...] = ("another colour", "another thing")
    found: list[bench_inpainting.Row] = []
    shown: dict[str, list[bench_inpainting.Shown]] = {change: [] for change in changes}
    with terminal.progress("measuring", max(0, asked.count - asked.first) * len(changes)) as advance:
        for rows, pictures in bench_inpainting.bench_inpainting(
            network, changes, count=asked.count, steps=asked.steps, guidance=strength, seed=asked.seed,
            first=asked.first, progress=lambda: advance(None, None),
        ):  # fmt: skip
            found += rows
            if pictures.pair < asked.first + 12:
                shown[rows[0].change].append(pictures)
    if asked.pictures:
        asked.pictures.mkdir(parents=True, exist_ok=True)
        for change, each in shown.items():
            name = f"inpainting-{change.split()[-1]}.webp"
            bench_inpainting.inpainting_sheet(each).save(asked.pictures / name, quality=80)
    terminal.give({"rows": [asdict(row) for row in found]})
    title = f"{opening.model}, {asked.steps} steps, guidance {strength:g}"
    terminal.say(table(title, bench_inpainting.COLUMNS, bench_inpainting.cells(found)))


@bench.command(usage="Usage: promptweave bench editors [OPTIONS] [NAMES...]")
@command(asked=Flags(Inversions), opening=OPENING, speaking=SPEAKING)
def editors(
    *names: Annotated[str, Parameter(help="Editors to measure. [all]")],
    asked: Inversions,
    opening: Opening,
    speaking: Speaking,
) -> None:
    """Measure editors of flow models on drawn images: does the edit succeed, and what stays?"""
    from dataclasses import asdict

    from promptweave.benchmarks import bench_editors
    from promptweave.benchmarks.bench_inversions import COLUMNS, Pictures, Row, cells, write_rows
    from promptweave.editing.plan import usual

    bench_editors.check_names(names)
    terminal, network = speaking.terminal, opening.load()
    chosen = names or tuple(bench_editors.EDITORS)
    strength = usual(network, asked.steps, asked.guidance)[1]
    found: list[Row] = []
    shown: list[Pictures] = []
    with terminal.progress("measuring", max(0, asked.count - asked.first) * len(chosen)) as advance:
        for row, pictures in bench_editors.bench_editors(
            network, chosen, count=asked.count, steps=asked.steps, guidance=strength, seed=asked.seed,
            first=asked.first, progress=lambda: advance(None, None),
        ):  # fmt: skip
            found.append(row)
            if asked.rows:
                write_rows(asked.rows, [row])
            if pictures.pair < asked.first + bench_editors.SHOWN:
                shown.append(pictures)
    if asked.pictures:
        asked.pictures.mkdir(parents=True, exist_ok=True)
        bench_editors.editor_sheet(shown).save(asked.pictures / "editors.webp", quality=80)
    terminal.give({"rows": [asdict(row) for row in found]})
    terminal.say(table(f"{opening.model}, {asked.steps} steps, guidance {strength:g}", COLUMNS, cells(found)))

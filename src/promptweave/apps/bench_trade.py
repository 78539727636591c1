"""The commands `promptweave bench world` and `promptweave bench curves`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from promptweave.apps.bench_app import OPENING, SPEAKING, bench
from promptweave.apps.common import Opening, Speaking
from promptweave.apps.flags import Flags, command
from promptweave.apps.terminal import table
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Pairs:
    """Which edits of the world are made, and where their rows are kept."""

    methods: Annotated[
        tuple[str, ...],
        Option("Method to measure: 'no control', MasaCtrl ... [all that suit the model]", group="What changes",
               flag="--method", metavar="NAME"),
    ] = ()  # fmt: skip
    count: Annotated[int | None, Option("Pairs, of all kinds in turn. [all]", low=1, group="What changes")] = None
    kinds: Annotated[
        tuple[str, ...],
        Option(
            "Only this kind: 'object swap', 'colour change' ...", group="What changes", flag="--kind", metavar="KIND"
        ),
    ] = ()
    sources: Annotated[
        tuple[str, ...],
        Option("Sources: drawn, given as an image, or generated from their prompt.", group="What changes",
               flag="--source", metavar="drawn|generated"),
    ] = ("drawn",)  # fmt: skip
    split: Annotated[
        str, Option("Pairs: tuning, to choose settings, or test, to report.", group="What changes", metavar="NAME")
    ] = "test"
    steps: Annotated[int | None, Option("Sampling steps. [the model's own]", low=1, group="Image")] = None
    guidance: Annotated[float | None, Option("Guidance scale. [the model's own]", low=0, group="Image")] = None
    seed: Annotated[int, Option("Seed of the noise.", low=0, group="Image", short="s")] = 5000
    batch: Annotated[int, Option("Pairs that share forward passes.", low=1, group="Advanced")] = 8
    output: Annotated[
        Path,
        Option("Folder of rows; a run that was ended goes on there, and several may share it.", group="Output",
               short="o", metavar="FOLDER"),
    ] = Path("out/world")  # fmt: skip

    def asked(self) -> dict[str, Any]:
        """The arguments of `bench_world` but for model, folder and methods."""
        from promptweave.world.counterfactuals import PROMPTED

        names = ("count", "split", "steps", "guidance", "seed", "batch")
        return {name: getattr(self, name) for name in names} | {
            "kinds": self.kinds or PROMPTED, "sources": self.sources
        }  # fmt: skip


PAIRS = Flags(Pairs)


def _parts(network: Any, asked: Pairs, *, sweep: bool) -> int:
    """How many parts the work has."""
    from promptweave.benchmarks.bench_world import units
    from promptweave.benchmarks.swept import methods_of
    from promptweave.editing.plan import usual
    from promptweave.world.counterfactuals import PROMPTED, counterfactuals

    steps, guidance = usual(network, asked.steps, asked.guidance)
    count = len(counterfactuals(asked.split, kinds=asked.kinds or PROMPTED, count=asked.count))
    methods = methods_of(network, steps, guidance, asked.methods)
    return len(units(methods, asked.sources, count, asked.batch, sweep=sweep))


@bench.command
@command(asked=PAIRS, opening=OPENING, speaking=SPEAKING)
def world(*, asked: Pairs, opening: Opening, speaking: Speaking) -> None:
    """Measure methods on pairs of scenes whose target image and region are exactly known."""
    from promptweave.benchmarks import bench_world, world_tables

    terminal, network = speaking.terminal, opening.load()
    with terminal.progress("editing", _parts(network, asked, sweep=False)) as advance:
        rows = bench_world.bench_world(
            network, asked.output, asked.methods, **asked.asked(), progress=lambda _: advance()
        )
    found = world_tables.usual_rows(rows)
    terminal.give({"rows": [asdict(row) for row in found]})
    for title, own in world_tables.by_source(found):
        terminal.say(table(title, world_tables.COLUMNS, world_tables.cells(own)))
        columns, lines = world_tables.kind_cells(own)
        terminal.say(table("by kind of edit: success, PSNR outside the region in dB", columns, lines))
    terminal.say(f"rows in {asked.output}")


@bench.command
@command(asked=PAIRS, opening=OPENING, speaking=SPEAKING)
def curves(*, asked: Pairs, opening: Opening, speaking: Speaking) -> None:
    """Sweep each method over its main strength: what it keeps against what it changes, as a plot and as areas."""
    from promptweave.benchmarks import bench_curves

    terminal, network = speaking.terminal, opening.load()
    with terminal.progress("sweeping", _parts(network, asked, sweep=True)) as advance:
        found = bench_curves.bench_curves(
            network, asked.output, asked.methods, **asked.asked(), progress=lambda _: advance()
        )
    terminal.give({"curves": [asdict(curve) for curve in found]})
    for title, own in bench_curves.together(found):
        terminal.say(table(title, bench_curves.AREA_COLUMNS, bench_curves.area_cells(own)))
        columns, lines = bench_curves.kind_cells(own)
        terminal.say(table("by kind of edit", columns, lines))
    terminal.say(*(f"wrote {path}" for path in bench_curves.write_curves(found, asked.output)))

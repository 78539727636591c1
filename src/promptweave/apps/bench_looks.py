"""The command `promptweave bench segments`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from promptweave.apps.bench_app import OPENING, SPEAKING, bench
from promptweave.apps.common import Opening, Speaking
from promptweave.apps.flags import Flags, command
from promptweave.apps.terminal import table
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Segments:
    """The images of `bench segments`."""

    count: Annotated[int, Option("Drawn images.", low=1, group="What changes")] = 100
    seed: Annotated[int, Option("Seed.", low=0, group="Image")] = 7000
    pictures: Annotated[
        Path | None, Option("Folder for a sheet of the first twelve images.", group="Output", metavar="FOLDER")
    ] = None


@bench.command(usage="Usage: promptweave bench segments [OPTIONS] [WAYS...]")
@command(asked=Flags(Segments), opening=OPENING, speaking=SPEAKING)
def segments(
    *ways: Annotated[str, Parameter(help="noised, 'noised 0.1,0.3', an inversion, 'concepts output'. [all that suit]")],
    asked: Segments,
    opening: Opening,
    speaking: Speaking,
) -> None:
    """Measure word maps and segmentation on drawn images, whose outlines are exactly known."""
    from dataclasses import asdict

    import numpy as np

    from promptweave.benchmarks import bench_segments
    from promptweave.view.sheet import sheet

    terminal, network = speaking.terminal, opening.load()
    chosen = ways or bench_segments.ways_of(network)
    found: list[bench_segments.Row] = []
    shown: list[list[np.ndarray]] = []
    with terminal.progress("measuring", asked.count * len(chosen)) as advance:
        for rows, made in bench_segments.bench_segments(
            network, chosen, count=asked.count, seed=asked.seed, progress=lambda: advance(None, None)
        ):
            found += rows
            if rows[0].way == chosen[0] and len(shown) < 12:
                shown.append([np.asarray(made.image)])
            if len(shown[-1]) <= len(chosen) and rows[0].image == len(shown) - 1:
                shown[-1].append(np.asarray(made.overlay()))
    if asked.pictures:
        asked.pictures.mkdir(parents=True, exist_ok=True)
        sheet(shown, [["drawn", *chosen]] * len(shown)).save(asked.pictures / "segments.webp", quality=80)
    terminal.give({"rows": [asdict(row) for row in found]})
    terminal.say(table(opening.model, bench_segments.COLUMNS, bench_segments.cells(found)))

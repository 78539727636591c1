"""The command of `promptweave bench` that measures the strength finder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from promptweave.apps.bench_app import OPENING, SPEAKING, bench
from promptweave.apps.common import Opening, Speaking
from promptweave.apps.flags import Flags, command
from promptweave.apps.terminal import table
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Searched:
    """The pairs of `bench find`."""

    split: Annotated[
        Literal["tuning", "test"],
        Option("Pairs that strengths may be chosen by, or those that nothing is.", group="What changes"),
    ] = "tuning"
    kinds: Annotated[
        tuple[str, ...],
        Option(
            "Only this kind: 'object swap', 'colour change' ...", group="What changes", flag="--kind", metavar="KIND"
        ),
    ] = ()
    first: Annotated[int, Option("The first pair, counted from 0.", low=0, group="What changes")] = 0
    count: Annotated[int, Option("Pairs; their kinds take turns.", low=1, group="What changes")] = 16
    generated: Annotated[
        bool, Option("Sources are generated from their prompts, not drawn and inverted.", group="Image")
    ] = False
    judge: Annotated[str, Option("Whom the search asks: oracle, clip or maps.", metavar="NAME")] = "oracle"
    steps: Annotated[int | None, Option("Sampling steps. [the model's own]", low=1, group="Image")] = None


@bench.command
@command(asked=Flags(Searched), opening=OPENING, speaking=SPEAKING)
def find(*, asked: Searched, opening: Opening, speaking: Speaking) -> None:
    """The strength finder against fixed strengths and those usual for the kind of edit, on the world's pairs."""
    from dataclasses import asdict

    from promptweave.benchmarks.bench_find import COLUMNS, bench_find, table_of

    terminal, network = speaking.terminal, opening.load()
    with terminal.progress("pairs", asked.count) as advance:
        rows = list(bench_find(network, **vars(asked), progress=advance))
    terminal.give([asdict(row) for row in rows])
    pairs = len({row.number for row in rows})
    terminal.say(table(f"{pairs} pairs of the split {asked.split}, {opening.model}", COLUMNS, table_of(rows)))

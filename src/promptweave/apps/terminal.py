"""Terminal output, progress bars and exit codes of the commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from promptweave.core.shown import harmless
from promptweave.editing.values import as_json

USAGE, FAILURE, INTERRUPTED = 2, 1, 130


@dataclass(frozen=True)
class Terminal:
    """`json`: one JSON document on standard output and nothing else. `quiet`: errors only."""

    json: bool = False
    quiet: bool = False

    @property
    def console(self) -> Console:
        """The console for readable output; what is printed is text as it is, without Rich's markup."""
        return Console(quiet=self.json or self.quiet, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def say(self, *values: Any) -> None:
        """Print readable output, unless it is switched off."""
        for value in values:
            self.console.print(harmless(value) if isinstance(value, str) else value)

    def give(self, value: Any) -> None:
        """Print a JSON document if --json is on."""
        if self.json:
            print(as_json(value, indent=1))

    def bar(self) -> Progress:
        """A progress bar on standard error, hidden if that is not a terminal."""
        shown = not (self.json or self.quiet) and sys.stderr.isatty()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        return Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Any]:
        """A progress bar with the remaining time; yields the callback that `sample` calls after each step."""
        with self.bar() as bar:
            task = bar.add_task(label, total=total)
            yield lambda *_: bar.advance(task)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A plain table; None becomes an empty cell."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name, style="" if name else "dim", header_style="dim")
    for row in rows:
        made.add_row(*("" if cell is None else harmless(str(cell)) for cell in row))
    return made


@contextmanager
def training_bar(terminal: Terminal, minutes: Mapping[str, float] | None = None) -> Iterator[Any]:
    """A progress bar per stage on standard error: time, loss and samples per second.

    `minutes`: of the stages that the clock ends; the others log the share that is done.
    """
    with terminal.bar() as bar:
        tasks: dict[str, Any] = {}
        first: dict[str, tuple[float, float]] = {}

        def watch(values: Mapping[str, Any]) -> None:
            stage = str(values["stage"])
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0)
            spent, samples = float(values["minutes"]), float(values.get("samples", 0))
            begun, before = first.setdefault(stage, (spent, samples))
            done = values.get("share") or spent / max((minutes or {}).get(stage, 0.0), 1e-9)
            rate = (samples - before) / max(60 * (spent - begun), 1e-9)
            loss = f" loss {values['loss']:.3f}" if "loss" in values else ""
            bar.update(tasks[stage], completed=done, description=f"{stage}{loss}, {rate:.0f} samples/s")

        yield watch

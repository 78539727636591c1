"""What the commands share: output, progress, exit codes and parsing of repeated options."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

USAGE, FAILURE, INTERRUPTED = 2, 1, 130


@dataclass(frozen=True)
class Terminal:
    """`json`: one JSON document on standard output and nothing else. `quiet`: errors only."""

    json: bool = False
    quiet: bool = False

    @property
    def console(self) -> Console:
        """Where people's output goes."""
        return Console(quiet=self.json or self.quiet, highlight=False, soft_wrap=True)

    def say(self, *values: Any) -> None:
        """Print for people."""
        for value in values:
            self.console.print(value)

    def give(self, value: Any) -> None:
        """Print for scripts."""
        if self.json:
            print(json.dumps(value, indent=1, ensure_ascii=False))

    def bar(self) -> Progress:
        """A progress bar on standard error, hidden where nobody watches."""
        shown = not (self.json or self.quiet) and sys.stderr.isatty()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        return Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Any]:
        """A bar with the time left; yields what `sample` calls after each step."""
        with self.bar() as bar:
            task = bar.add_task(label, total=total)
            yield lambda *_: bar.advance(task)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A plain table; None is an empty cell."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name, style="" if name else "dim", header_style="dim")
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return made


def number(text: str, option: str) -> float:
    """A number typed by a person."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option} takes a number. Received {text!r}.") from None


def span(text: str, option: str) -> float | tuple[float, float]:
    """A share "0.8" or a range "0.2:0.8"."""
    begin, colon, end = text.partition(":")
    return (number(begin, option), number(end, option)) if colon else number(text, option)


def spans(texts: Sequence[str], option: str) -> Any:
    """One share or range for all words, or "word=0.4" for some and a plain one for the others."""
    words: dict[str, Any] = {}
    for text in texts:
        word, equals, value = text.rpartition("=")
        words[word if equals else "default"] = span(value, option)
    return words["default"] if set(words) == {"default"} else words


def weights(texts: Sequence[str]) -> dict[str, float]:
    """ "red=2" as {"red": 2.0}."""
    found: dict[str, float] = {}
    for text in texts:
        word, equals, value = text.rpartition("=")
        if not equals or not word:
            raise ValueError(f"--weight takes word=factor, such as red=2. Received {text!r}.")
        found[word] = number(value, "--weight")
    return found


def byte_count(text: str | None) -> int | None:
    """ "500M" or "2G" as bytes."""
    if text is None:
        return None
    units = {"K": 1e3, "M": 1e6, "G": 1e9}
    unit = units.get(text[-1:].upper())
    return int(number(text[:-1] if unit else text, "--budget") * (unit or 1))


def size(text: str | None) -> tuple[int, int] | None:
    """ "128x192" (height x width) or "128"."""
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise ValueError(f"--size takes pixels, such as 512 or 512x768 (height x width). Received {text!r}.") from None

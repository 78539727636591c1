"""The row of one judged edit, files of such rows, and their means.

A file is Parquet (extra 'evaluate'; one column for each figure) or JSON lines, by its suffix.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from promptweave.core.files import write_file, write_text

FIGURE, IMAGE = "figure.", "image."  # prefixes of columns
LINES, PARQUET = ".jsonl", ".parquet"


@dataclass(frozen=True)
class EditRow:
    """One edit of one pair of prompts, and what the judges say about it.

    `benchmark`: "pie", "world" ...; `pair`: the name of the pair in it, `category` its kind of edit. `method`: the
    editor; `inversion`: empty where the source is generated; `settings`: what was set, by name; `strength`: the value
    of the method's main strength, if it was swept. `figures`: a judge that did not run has no entry, and a figure that
    this pair does not define (no pixels outside the mask, say) is NaN. `images`: "source", "edit" ... -> path, relative
    to the folder of the run. `seconds`: of the edit, without judging. `failure`: why there is no edit.
    """

    benchmark: str
    pair: str
    category: str
    method: str
    inversion: str
    model: str
    source: str
    target: str
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    strength: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    images: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float = math.nan
    failure: str = ""

    @property
    def way(self) -> tuple[str, str, str]:
        """What one line of a table is about: inversion, method, and its settings as text.

        >>> EditRow("pie", "0", "", "replace", "ddim", "toybox", "", "", settings={"cross": 0.4, "blend": True}).way
        ('ddim', 'replace', 'cross 0.4, blend true')
        """
        return self.inversion, self.method, ", ".join(f"{name} {_said(v)}" for name, v in self.settings.items())


@dataclass(frozen=True)
class Means:
    """The means of all rows of one way of editing. `figures`: name -> mean over the pairs that define it; `counts`: how
    many these are. `seconds`: the median."""

    inversion: str
    method: str
    settings: str
    strength: float | None
    pairs: int
    failures: int
    figures: Mapping[str, float]
    counts: Mapping[str, int]
    seconds: float


def means(rows: Iterable[EditRow]) -> list[Means]:
    """The means of each way of editing, in order of first appearance; NaN is left out, as PIE-Bench does."""
    found: dict[tuple[str, str, str], list[EditRow]] = {}
    for row in rows:
        found.setdefault(row.way, []).append(row)
    return [_means(way, each) for way, each in found.items()]


def figure_names(rows: Iterable[EditRow]) -> list[str]:
    """All figures that occur, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.figures))


def write_edit_rows(path: Path | str, rows: Sequence[EditRow]) -> Path:
    """Write rows to a .parquet or .jsonl file, whole or not at all. Raises ValueError for other suffixes, and
    CannotWrite."""
    path = Path(path)
    _check_suffix(path)
    if path.suffix == LINES:
        return write_text(path, "".join(json.dumps(plain_row(row), ensure_ascii=False) + "\n" for row in rows))
    table, parquet = _table(rows), arrow_module("pyarrow.parquet")
    return write_file(path, lambda fresh: parquet.write_table(table, fresh))


def read_edit_rows(path: Path | str) -> list[EditRow]:
    """The rows of a file. Raises FileNotFoundError, and ValueError for a file that holds none."""
    path = Path(path)
    _check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of rows {path}. Check the path.")
    try:
        if path.suffix == LINES:
            found = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
            return [row_of(each) for each in found]
        return [_row(each) for each in arrow_module("pyarrow.parquet").read_table(path).to_pylist()]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no rows of edits ({' '.join(str(error).split())}). Run it again.") from error


def _means(way: tuple[str, str, str], rows: Sequence[EditRow]) -> Means:
    figures: dict[str, float] = {}
    counts: dict[str, int] = {}
    for name in figure_names(rows):
        values = [row.figures[name] for row in rows if not math.isnan(row.figures.get(name, math.nan))]
        figures[name] = math.fsum(values) / len(values) if values else math.nan
        counts[name] = len(values)
    seconds = sorted(row.seconds for row in rows if not math.isnan(row.seconds))
    inversion, method, settings = way
    return Means(
        inversion, method, settings, rows[0].strength, len(rows), sum(bool(row.failure) for row in rows), figures,
        counts, seconds[len(seconds) // 2] if seconds else math.nan,
    )  # fmt: skip


def plain_row(row: EditRow) -> dict[str, Any]:
    """A row as JSON values, which have no NaN (null) and no infinity (text)."""
    return {**asdict(row), "figures": {name: _none(value) for name, value in row.figures.items()}} | {
        "seconds": _none(row.seconds)
    }


def _none(value: float) -> float | str | None:
    return None if math.isnan(value) else value if math.isfinite(value) else str(value)


def row_of(values: Mapping[str, Any]) -> EditRow:
    """The row of what `plain_row` gave."""
    figures = {name: math.nan if value is None else float(value) for name, value in values["figures"].items()}
    seconds = math.nan if values["seconds"] is None else values["seconds"]
    return EditRow(**{**values, "figures": figures, "seconds": seconds})


def _table(rows: Sequence[EditRow]) -> Any:
    """As a table: settings as JSON text, and a column for each figure and image."""
    arrow = arrow_module("pyarrow")
    kinds = {"seed": arrow.int64(), "strength": arrow.float64(), "seconds": arrow.float64()}
    fields = [name for name in EditRow.__dataclass_fields__ if name not in ("figures", "images")]
    columns = {
        name: arrow.array([_cell(row, name) for row in rows], kinds.get(name, arrow.string())) for name in fields
    }
    for name in figure_names(rows):
        columns[FIGURE + name] = arrow.array([row.figures.get(name) for row in rows], arrow.float64())
    for name in dict.fromkeys(name for row in rows for name in row.images):
        columns[IMAGE + name] = arrow.array([row.images.get(name) for row in rows], arrow.string())
    return arrow.table(columns)


def _cell(row: EditRow, name: str) -> Any:
    value = getattr(row, name)
    return json.dumps(dict(value), ensure_ascii=False) if name == "settings" else value


def _row(values: Mapping[str, Any]) -> EditRow:
    plain = {name: value for name, value in values.items() if "." not in name}
    parts = {
        prefix: {
            name.removeprefix(prefix): v for name, v in values.items() if name.startswith(prefix) and v is not None
        }
        for prefix in (FIGURE, IMAGE)
    }
    return EditRow(**{**plain, "settings": json.loads(plain["settings"])}, figures=parts[FIGURE], images=parts[IMAGE])


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _check_suffix(path: Path) -> None:
    if path.suffix not in (LINES, PARQUET):
        raise ValueError(f"Rows are kept in {PARQUET} or {LINES} files. Received {path.name}.")


def arrow_module(module: str) -> Any:
    """A module of pyarrow. Raises ImportError, which names the extra."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as missing:
        raise ImportError(
            "Parquet files need the extra 'evaluate'. Install it with: pip install 'promptweave[evaluate]'; or use "
            f"{LINES} files."
        ) from missing

"""A benchmark as one self-contained HTML page: the table, curves, the worst and the best edits, filters.

The page is the template run_report.html; this module gathers what it shows. It reads any folder with rows.parquet or
rows.jsonl (`evaluate.edit_rows`), whoever wrote it, and the folder of a run that has not come to its end.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from PIL import Image

from promptweave.benchmarks.field_folder import RunFolder
from promptweave.core.files import write_text
from promptweave.core.typed import checked
from promptweave.editing.values import as_json
from promptweave.evaluate.edit_rows import LINES, PARQUET, EditRow, figure_names, means, read_edit_rows
from promptweave.evaluate.published_rows import FIGURES, OTHERS, published_rows, published_source

SIDE = 256  # pixels a side of the images on the page, at most
SHOWN = 6  # edits at each end of a way
KEPT = ("psnr_outside", "psnr", "ssim", "structure")  # what an edit keeps, the first that there is
REACHED = ("success", "clip_edited", "psnr_goal_inside", "clip_whole", "psnr_goal")  # and what it reaches


@dataclass(frozen=True)
class Axes:
    """The figures by which edits are sorted and curves are drawn: what is kept, and what is reached."""

    kept: str
    reached: str


@checked
def write_run_report(folder: Path | str, output: Path | str | None = None, *, shown: int = SHOWN) -> Path:
    """Write the page of the benchmark in `folder` to `output`, by default its report.html, and return the path.

    `shown`: how many of the best and of the worst edits of each way it shows. Raises FileNotFoundError for a folder
    without rows, ValueError for damaged ones, CannotWrite.
    """
    folder = Path(folder)
    return write_text(folder / "report.html" if output is None else Path(output), run_report(folder, shown=shown))


@checked
def run_report(folder: Path | str, *, shown: int = SHOWN) -> str:
    """The page of the benchmark in `folder` as HTML."""
    folder = Path(folder)
    rows = _rows(folder)
    names = figure_names(rows)
    failed, missing = sum(bool(row.failure) for row in rows), [n for n in FIGURES if n not in names]
    facts = [
        f"{len({row.pair for row in rows})} pairs", f"{len(means(rows))} ways of editing",
        f"model {', '.join(sorted({row.model for row in rows}))}", *([f"{failed} edits failed"] if failed else []),
    ]  # fmt: skip
    return _template().render(
        title=f"Benchmark {', '.join(sorted({row.benchmark for row in rows}))}", facts=" · ".join(facts),
        missing=[FIGURES[name][0] for name in missing], source=published_source() if rows[0].benchmark == "pie" else "",
        data=as_json(page_data(folder, rows, shown)).replace("</", "<\\/"),
    )  # fmt: skip


def page_data(folder: Path, rows: Sequence[EditRow], shown: int) -> dict[str, Any]:
    """What the page's script works on."""
    names = _ordered(rows)
    ways = {row.way: number for number, row in enumerate({row.way: row for row in rows}.values())}
    first = {row.way: row for row in reversed(rows)}
    axes = axes_of(rows)
    pictures = _pictures(folder, rows, axes, shown)
    return {
        "figures": {name: _head(name) for name in names},
        "ways": [
            {
                "inversion": way[0], "method": way[1], "settings": way[2], "strength": first[way].strength,
                "line": _line(first[way]),
            }
            for way in ways
        ],
        "rows": [
            {
                "way": ways[row.way], "pair": row.pair, "category": row.category, "failure": row.failure,
                "figures": [_none(row.figures.get(name)) for name in names], "seconds": _none(row.seconds),
                "source": row.source, "target": row.target, "images": pictures.get((row.way, row.pair), []),
            }
            for row in rows
        ],
        "published": [
            {"inversion": row.inversion, "method": row.method, "label": row.label, "figures": row.figures}
            for row in (published_rows() if {row.benchmark for row in rows} == {"pie"} else ())
        ],
        "kept": axes.kept, "reached": axes.reached, "shown": shown,
    }  # fmt: skip


def axes_of(rows: Sequence[EditRow]) -> Axes:
    """The first of the figures of each kind that the rows have."""
    names = figure_names(rows)
    kept = next((name for name in KEPT if name in names), names[0] if names else "")
    return Axes(kept, next((name for name in REACHED if name in names), kept))


def better(name: str) -> bool:
    """Whether more of a figure is better."""
    return {**FIGURES, **OTHERS}.get(name, ("", 1.0, 3, True))[3]


def _pictures(folder: Path, rows: Sequence[EditRow], axes: Axes, shown: int) -> Mapping[tuple[Any, str], list[str]]:
    """The images of the best and worst edits of each way, by either figure, as data URLs."""
    chosen: dict[tuple[Any, str], EditRow] = {}
    for way in dict.fromkeys(row.way for row in rows):
        for name in (axes.kept, axes.reached):
            own = [row for row in rows if row.way == way and not math.isnan(row.figures.get(name, math.nan))]
            own.sort(key=lambda row: row.figures[name], reverse=better(name))
            chosen |= {(row.way, row.pair): row for row in (*own[:shown], *own[max(0, len(own) - shown) :])}
    urls: dict[Path, str] = {}
    found: dict[tuple[Any, str], list[str]] = {}
    for key, row in chosen.items():
        paths = [folder / row.images[name] for name in ("source", "edit") if name in row.images]
        found[key] = [urls.setdefault(path, _url(path)) for path in paths if path.is_file()]
    return found


def _url(path: Path) -> str:
    """An image, reduced, as a data URL."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=82)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _line(row: EditRow) -> str:
    """What the points of one curve share: all but the value of the strength."""
    inversion, method, _ = row.way
    rest = [f"{name} {value}" for name, value in row.settings.items() if value != row.strength]
    return " + ".join(filter(None, (inversion, method))) + (f", {', '.join(rest)}" if rest else "")


def _head(name: str) -> dict[str, Any]:
    label, factor, decimals, more = {**FIGURES, **OTHERS}.get(name, (name, 1.0, 3, True))
    return {"label": label, "factor": factor, "decimals": decimals, "more": more}


def _ordered(rows: Sequence[EditRow]) -> list[str]:
    """The figures of the rows, those of the published table first."""
    known = [*FIGURES, *OTHERS]
    return sorted(figure_names(rows), key=lambda name: known.index(name) if name in known else len(known))


def _none(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value if math.isfinite(value) else math.copysign(1e9, value)


def _rows(folder: Path) -> list[EditRow]:
    if (folder / "edits").is_dir():  # also of a run that has not come to its end
        found = RunFolder(folder).rows()
        if found:
            return found
    parts = [row for path in sorted(folder.rglob("rows/*.jsonl")) for row in read_edit_rows(path)]  # of `bench world`
    if parts:
        return parts
    for end in (PARQUET, LINES):
        if (folder / f"rows{end}").is_file():
            found = read_edit_rows(folder / f"rows{end}")
            if not found:
                raise ValueError(f"{folder} is a benchmark in which nothing has been edited yet. Run it to its end.")
            return found
    raise FileNotFoundError(
        f"{folder} holds no benchmark: there is no rows{PARQUET} or rows{LINES}. Give the output folder of "
        "`promptweave bench pie`."
    )


@cache
def _template() -> Template:
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return made.from_string(files("promptweave.benchmarks").joinpath("run_report.html").read_text("utf-8"))

"""Curves instead of rows: what each method keeps against what it changes, over its main strength.

`bench_curves` runs the sweeps of `bench_world`; `curves_of` makes curves of rows, `write_curves` plots and tables.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from promptweave.benchmarks.bench_world import DRAWN, FIGURES, bench_world
from promptweave.benchmarks.swept import METHODS, NO_CONTROL, NO_EDIT, REFERENCES
from promptweave.core.files import Write, write_files
from promptweave.evaluate.edit_rows import EditRow, Means, means
from promptweave.evaluate.fronts import Area, area_of
from promptweave.models.base import Model
from promptweave.view.tradeoff import KINDS, Traded, small_tradeoffs, tradeoff, write_figure
from promptweave.world.counterfactuals import PROMPTED

KEPT: Mapping[str, str] = {
    "psnr_outside": "PSNR outside the true region, dB",
    "ssim_outside": "SSIM outside the true region",
    "structure_oracle": "structure distance (down is better)",
}
ACROSS = "success, % of the edits that the oracle sees"


@dataclass(frozen=True)
class Curve:
    """A method with one model on one kind of source. `points`: the means at each strength, by rising strength; `usual`:
    the index of the default; `areas`: under the front of success and each of `KEPT` (of the structure's distance, 1
    minus it); `of_kinds`: the same under PSNR for each kind of edit."""

    model: str
    benchmark: str
    method: str
    points: tuple[Means, ...]
    usual: int | None
    areas: Mapping[str, Area]
    of_kinds: Mapping[str, float]

    @property
    def asked(self) -> int:
        """The pairs that the method could be asked for."""
        return max(point.pairs - point.failures for point in self.points)


def bench_curves(
    model: Model, folder: Path, methods: Sequence[str] = (), *, count: int | None = None,
    sources: Sequence[str] = (DRAWN,), split: str = "test", kinds: Sequence[str] = PROMPTED, steps: int | None = None,
    guidance: int | float | None = None, seed: int = 5000, batch: int = 8,
    progress: Callable[[int], Any] | None = None,
) -> list[Curve]:  # fmt: skip
    """The curves of methods (default: all that suit the model) on the first `count` pairs of a split, whose rows are in
    `folder`, or are made. Raises what `bench_world` raises."""
    rows = bench_world(
        model, folder, methods, count=count, sources=sources, split=split, kinds=kinds, steps=steps, guidance=guidance,
        seed=seed, batch=batch, sweep=True, progress=progress,
    )  # fmt: skip
    return curves_of(rows)


def curves_of(rows: Sequence[EditRow]) -> list[Curve]:
    """The curves of rows, those of one model and kind of source together, methods in the order of `METHODS`."""
    order = list(METHODS)
    groups: dict[tuple[str, str, str], list[EditRow]] = {}
    for row in rows:
        groups.setdefault((row.model, row.benchmark, row.method), []).append(row)
    ranked = sorted(groups, key=lambda key: (key[0], key[1], order.index(key[2])))
    return [_curve(*key, groups[key]) for key in ranked]


def _curve(model: str, benchmark: str, method: str, rows: Sequence[EditRow]) -> Curve:
    values = sorted({row.strength or 0.0 for row in rows})
    each = {value: [row for row in rows if (row.strength or 0.0) == value] for value in values}
    points = tuple(_mean(each[value]) for value in values)
    pairs = sorted({row.pair for row in rows})
    success = _table(each, pairs, "success")
    areas = {name: area_of(success, _worth(name, _table(each, pairs, name))) for name in KEPT}
    of_kinds: dict[str, float] = {}
    for kind in dict.fromkeys(row.category for row in rows):
        chosen = [pair for pair in pairs if any(row.pair == pair and row.category == kind for row in rows)]
        kept = _table(each, chosen, "psnr_outside")
        of_kinds[kind] = area_of(_table(each, chosen, "success"), kept, rounds=0).value
    usual = METHODS[method].usual
    return Curve(model, benchmark, method, points, values.index(usual) if usual in values else None, areas, of_kinds)


def _mean(rows: Sequence[EditRow]) -> Means:
    """The means of one strength; a method of a given image alone names its strength in the inversion."""
    first = rows[0]
    same = [EditRow(**{**vars(row), "inversion": "", "settings": first.settings}) for row in rows]
    return means(same)[0]


def _table(each: Mapping[float, Sequence[EditRow]], pairs: Sequence[str], name: str) -> np.ndarray:
    """A figure as [strengths, pairs]; NaN where it is not known."""
    place = {pair: index for index, pair in enumerate(pairs)}
    found = np.full((len(each), len(pairs)), np.nan)
    for line, rows in enumerate(each.values()):
        for row in rows:
            if row.pair in place:
                found[line, place[row.pair]] = row.figures.get(name, math.nan)
    return found


def _worth(name: str, values: np.ndarray) -> np.ndarray:
    return 1 - values if name == "structure_oracle" else values


def traded(curve: Curve) -> Traded:
    """A curve as a line of a plot."""
    return Traded(
        curve.method,
        [100 * point.figures.get("success", math.nan) for point in curve.points],
        {name: [point.figures.get(name, math.nan) for point in curve.points] for name in KEPT},
        [f"{point.strength:.2g}" for point in curve.points],
        curve.usual,
        curve.method in REFERENCES,
    )


def together(curves: Sequence[Curve]) -> Iterator[tuple[str, list[Curve]]]:
    """The curves of each model and kind of source, and their name, "toybox, drawn"."""
    for model, benchmark in dict.fromkeys((curve.model, curve.benchmark) for curve in curves):
        name = f"{model}, {benchmark.split(', ')[-1]}"
        yield name, [curve for curve in curves if (curve.model, curve.benchmark) == (model, benchmark)]


def write_curves(curves: Sequence[Curve], folder: Path) -> list[Path]:
    """For each model and kind of source a plot of all methods and one of each method, as SVG, PDF and PNG, and the
    points as CSV. Raises ImportError without the extra 'evaluate'."""
    files: dict[str, Write] = {}
    for name, own in together(curves):
        lines = [traded(curve) for curve in own]
        title = f"{name} sources: {max(curve.asked for curve in own)} pairs a point; a large mark is a default"
        all_of_them = tradeoff(lines, KEPT, across=ACROSS, title=title)
        panel, about = "psnr_outside", f"{name} sources; numbers: strengths"
        stem = f"curves-{name.replace(', ', '-')}"
        files |= {f"{stem}.{kind}": partial(write_figure, all_of_them) for kind in KINDS}
        if not all(line.reference for line in lines):
            each = small_tradeoffs(lines, panel, KEPT[panel], across=ACROSS, title=about)
            files |= {f"{stem}-each.{kind}": partial(write_figure, each) for kind in KINDS}
        files[f"{stem}.csv"] = partial(_write_text, points_table(own))
    return write_files(folder, files)


def points_table(curves: Sequence[Curve]) -> str:
    """All points as CSV, with their settings."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "benchmark", "method", "settings", "usual", "pairs", *FIGURES, "seconds"])
    for curve in curves:
        for place, point in enumerate(curve.points):
            figures = ["" if math.isnan(v := point.figures.get(name, math.nan)) else f"{v:.5g}" for name in FIGURES]
            writer.writerow(
                [curve.model, curve.benchmark, curve.method, point.settings, "yes" if place == curve.usual else "",
                 point.pairs - point.failures, *figures, f"{point.seconds:.3g}"]
            )  # fmt: skip
    return text.getvalue()


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, "utf-8")


AREA_COLUMNS = ("method", "strength", "area, dB", "area, SSIM", "area, structure", "success at the default", "pairs")


def area_cells(curves: Sequence[Curve]) -> list[tuple[str, ...]]:
    """The areas of each curve, the largest under PSNR first, with standard errors; references have none."""
    swept = [curve for curve in curves if curve.method not in (NO_EDIT, NO_CONTROL)]
    ranked = sorted(swept, key=lambda curve: -np.nan_to_num(curve.areas["psnr_outside"].value))
    made: list[tuple[str, ...]] = []
    for curve in ranked:
        psnr, ssim, structure = (curve.areas[name] for name in KEPT)
        usual = curve.points[curve.usual].figures.get("success", math.nan) if curve.usual is not None else math.nan
        strengths = METHODS[curve.method].strength, *(f"{curve.points[end].strength:.2g}" for end in (0, -1))
        made.append(
            (
                curve.method, "{} {} to {}".format(*strengths), f"{psnr.value:.1f} +- {psnr.error:.1f}",
                f"{ssim.value:.3f} +- {ssim.error:.3f}", f"{structure.value:.3f} +- {structure.error:.3f}",
                "" if math.isnan(usual) else f"{usual:.0%}", str(curve.asked),
            )
        )  # fmt: skip
    return made


def kind_cells(curves: Sequence[Curve]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The area under PSNR, in dB, of each method for each kind of edit that has an outside: columns and rows."""
    kinds = list(dict.fromkeys(kind for curve in curves for kind, v in curve.of_kinds.items() if not math.isnan(v)))
    shown = [curve for curve in curves if curve.method not in (NO_EDIT, NO_CONTROL)]
    rows = [
        (curve.method, *("" if math.isnan(v := curve.of_kinds.get(k, math.nan)) else f"{v:.1f}" for k in kinds))
        for curve in shown
    ]
    return ("area in dB", *kinds), rows

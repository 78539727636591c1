"""The rows of `bench world` as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from promptweave.benchmarks.bench_world import FIGURES
from promptweave.benchmarks.swept import METHODS
from promptweave.evaluate.edit_rows import EditRow, means


def usual_rows(rows: Sequence[EditRow]) -> list[EditRow]:
    """The rows at the usual strengths: a folder may have those of sweeps, too."""
    return [row for row in rows if row.strength == METHODS[row.method].usual]


def by_source(rows: Sequence[EditRow]) -> list[tuple[str, list[EditRow]]]:
    """The rows of each model and kind of source, and a title."""
    groups: dict[str, list[EditRow]] = {}
    for row in sorted(rows, key=lambda row: list(METHODS).index(row.method)):
        groups.setdefault(f"{row.model}, {row.benchmark.split(', ')[-1]} sources", []).append(row)
    return list(groups.items())


SHORT = ("success", "PSNR", "SSIM", "structure", "goal PSNR", "SSIM", "distance")  # of FIGURES, in that order
COLUMNS = ("method", *SHORT, "s", "pairs")


def cells(rows: Sequence[EditRow]) -> list[tuple[str, ...]]:
    """The means of each method, as a table; "s": seconds of an edit."""
    return [
        (
            mean.method, *(_cell(name, mean.figures.get(name, math.nan)) for name in FIGURES),
            f"{mean.seconds:.2f}", str(mean.pairs - mean.failures),
        )
        for mean in means(rows)
    ]  # fmt: skip


def kind_cells(rows: Sequence[EditRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Success and PSNR outside the region of each method for each kind of edit: columns and rows."""
    kinds = list(dict.fromkeys(row.category for row in rows))
    lines: list[tuple[str, ...]] = []
    for method in dict.fromkeys(row.method for row in rows):
        own = [means([row for row in rows if row.method == method and row.category == kind]) for kind in kinds]
        figures = [each[0].figures if each else {} for each in own]
        lines.append((method, *(" ".join(_cell(n, f.get(n, math.nan)) for n in list(FIGURES)[:2]) for f in figures)))
    return ("", *kinds), lines


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return ""
    if name == "success":
        return f"{value:.0%}"
    return f"{value:.1f}" if name.startswith("psnr") else f"{value:.3f}"

"""Plots of what methods trade, by matplotlib (extra 'evaluate'): a line for each method, a point for each setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptweave.view.curves import COLOURS

MARKS = "osD^vP"
DASHES = ("-", "--", ":")
GREY = "#c4c4cc"
KINDS = ("svg", "pdf", "png")
COLUMNS = 4  # of small plots


@dataclass(frozen=True)
class Traded:
    """A method: `across` and, for each quantity, `up` at its settings, which `labels` names; `usual`: the index of its
    default. A reference is drawn in black."""

    name: str
    across: Sequence[float]
    up: Mapping[str, Sequence[float]]
    labels: Sequence[str]
    usual: int | None = None
    reference: bool = False


def tradeoff(lines: Sequence[Traded], panels: Mapping[str, str], *, across: str, title: str = "") -> Any:
    """A figure with a plot for each quantity, of name and label in `panels`, over one axis, and a legend below. The
    default of each method is the large mark."""
    figure = _figure(4.6 * len(panels), 4.4 + 0.17 * (len(lines) // 4 + 1))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, label) in zip(axes, panels.items(), strict=True):
        for number, line in enumerate(lines):
            _draw(axis, line, name, number)
        _scales(axis, across, label)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def small_tradeoffs(lines: Sequence[Traded], panel: str, label: str, *, across: str, title: str = "") -> Any:
    """A figure with a small plot for each method, the others in grey behind it; every point has its setting."""
    own = [line for line in lines if not line.reference]
    height = -(-len(own) // COLUMNS)
    figure = _figure(3.1 * COLUMNS, 2.5 * height + 0.3)
    axes = figure.subplots(height, COLUMNS, squeeze=False, sharex=True, sharey=True)
    for place, axis in enumerate(axes.flat):
        if place >= len(own):
            axis.set_axis_off()
            continue
        for line in lines:
            axis.plot(line.across, line.up[panel], color=GREY, lw=0.8, marker="." if line.reference else None, zorder=1)
        _draw(axis, own[place], panel, lines.index(own[place]))
        for x, y, text in zip(own[place].across, own[place].up[panel], own[place].labels, strict=True):
            axis.annotate(text, (x, y), textcoords="offset points", xytext=(3, 4), fontsize=6.5)
        axis.set_title(own[place].name, fontsize=9)
        _scales(axis, across if place >= len(own) - COLUMNS else "", label if place % COLUMNS == 0 else "")
        axis.xaxis.set_tick_params(labelbottom=True)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure as the kind of file that the suffix of `path` says."""
    figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw(axis: Any, line: Traded, panel: str, number: int) -> None:
    values = line.up[panel]
    colour = "black" if line.reference else tuple(c / 255 for c in COLOURS[number % (len(COLOURS) - 1)])
    turn = number // (len(COLOURS) - 1)
    mark = "X*+x"[number % 4] if line.reference else MARKS[number % len(MARKS)]
    axis.plot(
        line.across, values, color=colour, ls=":" if line.reference else DASHES[turn % len(DASHES)], lw=1.3,
        marker=mark, ms=6 if line.reference else 4, label=line.name, zorder=3,
    )  # fmt: skip
    if line.usual is not None and not line.reference:
        axis.plot(line.across[line.usual], values[line.usual], color=colour, marker=mark, ms=8.5, mec="white", zorder=4)


def _scales(axis: Any, across: str, label: str) -> None:
    axis.set_xlabel(across, fontsize=8)
    axis.set_ylabel(label, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(color="#e8e8ec", lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Any:
    """A figure in inches, without a window and outside of all global state."""
    try:
        from matplotlib import rcParams
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise ImportError(
            "Plots of curves need the extra 'evaluate'. Install it with: pip install 'promptweave[evaluate]'"
        ) from missing
    rcParams["svg.fonttype"] = "none"  # text stays text
    return Figure(figsize=(width, height), layout="constrained")

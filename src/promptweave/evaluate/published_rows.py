"""The published table of PIE-Bench, which ships as data with its sources, and means beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from promptweave.evaluate.edit_rows import Means

FIGURES = {  # name -> (as tables head it, the factor that they print it with, decimals, whether more is better)
    "structure": ("Structure x1e3", 1e3, 2, False), "psnr": ("PSNR", 1.0, 2, True),
    "lpips": ("LPIPS x1e3", 1e3, 2, False), "mse": ("MSE x1e4", 1e4, 2, False), "ssim": ("SSIM x1e2", 1e2, 2, True),
    "clip_whole": ("CLIP whole", 1.0, 2, True), "clip_edited": ("CLIP edited", 1.0, 2, True),
}  # fmt: skip

OTHERS: dict[str, tuple[str, float, int, bool]] = {  # the same of those that no published table has
    "success": ("Success", 100.0, 0, True), "psnr_outside": ("PSNR outside", 1.0, 2, True),
    "mse_outside": ("MSE outside x1e4", 1e4, 2, False), "ssim_outside": ("SSIM outside x1e2", 1e2, 2, True),
    "lpips_outside": ("LPIPS outside x1e3", 1e3, 2, False),
    "structure_scaled": ("Structure, scaled x1e3", 1e3, 2, False), "clip_box": ("CLIP box", 1.0, 2, True),
    "clip_source": ("CLIP source", 1.0, 2, True), "clip_change": ("CLIP change", 1.0, 3, True),
    "psnr_inversion": ("PSNR of the inversion", 1.0, 2, True), "psnr_goal": ("PSNR to the goal", 1.0, 2, True),
    "psnr_goal_inside": ("PSNR to the goal, inside", 1.0, 2, True), "l1_goal": ("L1 to the goal x1e2", 1e2, 2, False),
    "l2_goal": ("L2 to the goal x1e2", 1e2, 2, False),
}  # fmt: skip
BESIDE = ("success", "psnr_outside", "psnr_goal_inside")  # of these, columns of a comparison


@dataclass(frozen=True)
class Published:
    """A row of the published table. `method`: the name of our editor of that kind, `label` that of the paper."""

    inversion: str
    method: str
    label: str
    figures: dict[str, float]


def published_rows() -> tuple[Published, ...]:
    """The table of Ju et al. 2024.

    >>> [row.figures["psnr"] for row in published_rows() if row.inversion == "direct"][:2]
    [27.22, 22.64]
    """
    data = _data()
    return tuple(
        Published(inversion, method, label, dict(zip(data["figures"], _scaled(values, data["scale"]), strict=True)))
        for inversion, method, label, values in data["rows"]
    )


def published_source() -> str:
    """Where the table is from."""
    return str(_data()["source"])


def published_ranges() -> dict[str, tuple[str, float, float]]:
    """By editor: the method's name, and between which PSNR in dB its published rows lie, depending on settings."""
    return {name: (label, low, high) for name, label, low, high in _data()["ranges"]["rows"]}


def beside(found: Iterable[Means]) -> list[tuple[Means, Published | None]]:
    """Means, each with the published row of its inversion and editor, if there is one."""
    known = {(row.inversion, row.method): row for row in published_rows()}
    return [(one, known.get((one.inversion.partition(":")[0], one.method))) for one in found]


def comparison(found: Sequence[Means], *, published: bool = True) -> tuple[list[str], list[list[str]]]:
    """Head and lines of a table: each way, and under it the `published` row of its kind; "" where nothing was measured.

    Figures are printed as papers print them (MSE times 1e4, and so on).
    """
    names = [name for name in (*FIGURES, *BESIDE) if any(name in one.figures for one in found)]
    lines: list[list[str]] = []
    for one, row in beside(found):
        way = " + ".join(filter(None, (one.inversion, one.method))) + (f", {one.settings}" if one.settings else "")
        lines.append([way, str(one.pairs - one.failures), *(printed(name, one.figures.get(name)) for name in names)])
        if row is not None and published:
            cells = (printed(name, row.figures.get(name)) for name in names)
            lines.append([f"  published: {row.inversion} + {row.label}", "700", *cells])
    return ["", "pairs", *({**FIGURES, **OTHERS}[name][0] for name in names)], lines


def printed(name: str, value: float | None) -> str:
    """A figure as tables print it.

    >>> printed("mse", 0.003286), printed("psnr", None)
    ('32.86', '')
    """
    _, factor, decimals, _ = {**FIGURES, **OTHERS}.get(name, (name, 1.0, 3, True))
    return "" if value is None or value != value else f"{value * factor:.{decimals}f}"


def _scaled(values: Sequence[float], scale: Sequence[float]) -> list[float]:
    return [round(value * factor, 10) for value, factor in zip(values, scale, strict=True)]


@cache
def _data() -> Any:
    return json.loads(files("promptweave.evaluate").joinpath("published_table.json").read_text("utf-8"))

"""The judges of a benchmark that are on this machine, and a sentence for each that is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptweave.evaluate.judges import Case, Clip, Goal, Judge, Perceptual, Pixels, Structure
from promptweave.models.judge_networks import NoJudge, load_clip, load_dino, load_lpips

Figures = dict[str, float]
NETWORKS: dict[str, tuple[Callable[[Path | None], Any], Callable[..., Judge]]] = {
    "structure": (load_dino, Structure),
    "lpips": (load_lpips, Perceptual),
    "clip": (load_clip, lambda parts: Clip(*parts)),
}


@dataclass(frozen=True, eq=False)
class Judges:
    """`judges`: those that run; `missing`: why others do not."""

    judges: tuple[Judge, ...]
    missing: tuple[str, ...] = ()

    def of(self, case: Case, known: Figures | None = None) -> Figures:
        """The figures of an edit, with those that are `known`; NaN where a judge does not define one."""
        found = dict(known or {})
        for judge in self.judges:
            if not set(judge.figures) <= set(found):
                found |= dict.fromkeys(judge.figures, math.nan) | judge(case)
        return found

    def owe(self, known: Figures) -> bool:
        """Whether there are figures that are not `known`."""
        return any(not set(judge.figures) <= set(known) for judge in self.judges)


def find_judges(folder: Path | str | None, device: Any) -> Judges:
    """All judges of PIE-Bench. `folder`: where their networks are looked for before the local cache.

    Raises FileNotFoundError for a folder that is not there, ImportError without the extra 'evaluate'.
    """
    if folder is not None and not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no folder of judges {folder}. Check the path.")
    check_extra()
    found: list[Judge] = [Pixels(), Goal()]
    missing: list[str] = []
    for load, judge in NETWORKS.values():
        try:
            parts = load(None if folder is None else Path(folder))
        except NoJudge as reason:
            missing.append(str(reason))
            continue
        network = parts[0] if isinstance(parts, tuple) else parts
        network.to(device)
        found.append(judge(parts))
    return Judges(tuple(found), tuple(missing))


def check_extra() -> None:
    """Raise ImportError if the extra 'evaluate' is not installed."""
    try:
        import pyarrow as pyarrow  # noqa: F401
        import torchmetrics as torchmetrics  # noqa: F401
    except ImportError as missing:
        raise ImportError(
            "Benchmarks on data sets need the extra 'evaluate'. Install it with: pip install 'promptweave[evaluate]'"
        ) from missing

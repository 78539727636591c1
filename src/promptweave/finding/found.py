"""What a search found: the settings that it tried, the front of the best, and the one that it picks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from promptweave.core.files import Write, write_files
from promptweave.core.shown import brief
from promptweave.editing.result import Result
from promptweave.editing.values import as_json
from promptweave.finding.ladders import told
from promptweave.finding.verdicts import Verdict
from promptweave.view.front_sheet import Mark, front_sheet

PLOT, DATA = "front.webp", "front.json"


@dataclass(frozen=True, eq=False)
class Point:
    """Settings that were tried. `verdict`: on the finished edit or, for those whose run was ended early, on the image
    predicted after `share` of the steps. `result`: the finished edit."""

    settings: Mapping[str, Any]
    verdict: Verdict
    share: int | float
    result: Result | None = None

    def __repr__(self) -> str:
        return brief(self, self.said, f"made {self.verdict.score:.2f}", f"kept {self.verdict.kept:.3g}")

    @property
    def picture(self) -> Image.Image:
        """The finished edit. Raises ValueError for one that was ended early."""
        if self.result is None:
            raise ValueError(
                f"This run was ended after {self.share:.0%} of its steps and has no image. Run the edit again."
            )
        return self.result.edited

    @property
    def said(self) -> str:
        """The settings in words."""
        return told(self.settings)


@dataclass(frozen=True, eq=False)
class Found:
    """The result of a search.

    `points`: all settings tried, in order. `front`: the finished ones that no other beats in both respects, from what
    keeps the most to what changes the most. `pick`: the one to take, and `why` in a sentence. `judge` and `measure`:
    who judged, and what `kept` is. `rows`: rows of latents that the network computed, the source's included; `plain`:
    those of one edit of the same prompts.
    """

    points: tuple[Point, ...]
    front: tuple[Point, ...]
    pick: Point
    why: str
    judge: str
    measure: str
    rows: int
    plain: int

    def __repr__(self) -> str:
        counts = f"{len(self.points)} settings tried", f"{len(self.front)} on the front"
        return brief(self, f"pick {self.pick.said}", *counts, f"judge {self.judge}")

    @property
    def result(self) -> Result:
        """The edit with the settings that were picked."""
        assert self.pick.result is not None
        return self.pick.result

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that were picked, as options of `edit`; windows that are all 0: the target without control."""
        return dict(self.pick.settings)

    @property
    def cost(self) -> float:
        """Rows of the search over those of one plain edit."""
        return self.rows / self.plain

    def at(self, share: int | float) -> Point:
        """The point of the front at a share of the way from what keeps the most (0) to what changes the most (1)."""
        if not 0 <= share <= 1:
            raise ValueError(f"A place on the front is a share from 0 to 1. Received {share}.")
        return self.front[round(share * (len(self.front) - 1))]

    def sheet(self) -> Image.Image:
        """The front as a plot, and its images from the one that keeps the most to the one that changes the most."""
        numbers = {id(point): number for number, point in enumerate(self.front, 1)}
        marks = [
            Mark(p.verdict.kept, p.verdict.score, numbers.get(id(p)), p.verdict.enough, p is self.pick)
            for p in self.points
        ]
        recipe = self.result.recipe
        pictures = [np.asarray(self.result.source), *(np.asarray(point.picture) for point in self.front)]
        labels = ["source", *(f"{numbers[id(p)]}{' picked' if p is self.pick else ''}: {p.said}" for p in self.front)]
        title = (f"{recipe.source} -> {recipe.prompts[-1]}", self.why)
        return front_sheet(marks, pictures, labels, title=title, across=self.measure, up=f"made, by {self.judge}")

    @property
    def record(self) -> dict[str, Any]:
        """The search as JSON values; `file` is a point's image beside it."""
        files = {id(point): f"front-{number}.png" for number, point in enumerate(self.front, 1)}
        return {
            "judge": self.judge, "measure": self.measure, "why": self.why, "rows": self.rows, "plain": self.plain,
            "points": [
                {
                    "settings": dict(p.settings), "score": round(p.verdict.score, 4), "kept": round(p.verdict.kept, 3),
                    "enough": p.verdict.enough, "steps": p.share, "file": files.get(id(p)), "picked": p is self.pick,
                }
                for p in self.points
            ],
        }  # fmt: skip

    def save(self, folder: Path | str, *, force: bool = False, pages: Mapping[str, str] | None = None) -> list[Path]:
        """Write what `edit` writes of the picked edit, then the front's images with their recipes, front.webp and
        front.json."""
        folder = Path(folder)
        written = self.result.save(folder, force=force, pages=pages)
        files: dict[str, Write] = {}
        for number, point in enumerate(self.front, 1):
            assert point.result is not None
            files[f"front-{number}.png"] = partial(_save, point.result)
        sheet, text = self.sheet(), as_json(self.record, indent=1) + "\n"
        files[PLOT] = lambda path: sheet.save(path, quality=90)
        files[DATA] = lambda path: path.write_text(text, "utf-8")
        return [*written, *write_files(folder, files, without=("front-*.png",) if force else ())]


def _save(result: Result, path: Path) -> None:
    result.save_picture(path, len(result.recipe.prompts) - 1, 0)


def front_of(points: list[Point]) -> tuple[Point, ...]:
    """The finished points that no other beats, from the most kept to the most changed; of equal ones the first."""
    done = [point for point in points if point.result is not None]
    best: list[Point] = []
    for point in sorted(done, key=lambda p: (-p.verdict.kept, -p.verdict.score)):
        if not best or point.verdict.score > best[-1].verdict.score:
            best.append(point)
    return tuple(best)

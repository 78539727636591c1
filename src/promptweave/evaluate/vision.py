"""Measures of segmentation, referring segmentation and depth, summed up image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Figures = dict[str, float]


@dataclass(frozen=True)
class Measure:
    """`add(answer, target)` takes one image's arrays [height, width]; `figures()` gives the measures of all so far."""

    add: Callable[[Any, Any], None]
    figures: Callable[[], Figures]


def region_measures(classes: Sequence[str], ignored: int = 255) -> Measure:
    """Mean intersection over union over the classes that occur in targets or answers, and pixel accuracy."""
    count = len(classes)
    table = np.zeros((count, count), dtype=np.int64)  # target, answer

    def add(answer: Any, target: Any) -> None:
        answer, target = np.asarray(answer), np.asarray(target)
        known = target != ignored
        pairs = target[known].astype(np.int64) * count + answer[known].astype(np.int64)
        table[:] += np.bincount(pairs, minlength=count * count).reshape(count, count)

    def figures() -> Figures:
        both = np.diag(table).astype(float)
        either = table.sum(0) + table.sum(1) - both
        ious = both[either > 0] / either[either > 0]
        return {
            "mIoU": float(ious.mean()) if ious.size else float("nan"),
            "pixel accuracy": float(both.sum() / max(1, table.sum())),
        }

    return Measure(add, figures)


def mask_measures() -> Measure:
    """Overall IoU (all intersections over all unions), mean IoU over images, and the fraction of images with IoU above
    0.5 (P@0.5). An empty answer to an empty target counts as 1."""
    areas: list[tuple[int, int]] = []

    def add(answer: Any, target: Any) -> None:
        target = np.asarray(target)
        known = target != 255
        answer, target = np.asarray(answer).astype(bool) & known, (target == 1) & known
        areas.append((int((answer & target).sum()), int((answer | target).sum())))

    def figures() -> Figures:
        ious = np.array([both / either if either else 1.0 for both, either in areas])
        both, either = (sum(column) for column in zip(*areas, strict=True)) if areas else (0, 0)
        return {
            "overall IoU": both / either if either else float("nan"),
            "mean IoU": float(ious.mean()) if areas else float("nan"),
            "P@0.5": float((ious > 0.5).mean()) if areas else float("nan"),
        }

    return Measure(add, figures)


def depth_measures(farthest: int | float, nearest: int | float = 1e-3) -> Measure:
    """RMSE in metres, mean relative error (REL), log10 error and the fractions of pixels within a factor of 1.25,
    1.25^2 and 1.25^3 (delta), each averaged over images; pixels whose depth is known and at most `farthest` count."""
    rows: list[list[float]] = []

    def add(answer: Any, target: Any) -> None:
        target = np.asarray(target, dtype=float)
        known = (target > nearest) & (target <= farthest)
        if not known.any():
            return
        d, truth = np.asarray(answer, dtype=float)[known].clip(nearest, farthest), target[known]
        ratio = np.maximum(d / truth, truth / d)
        rows.append(
            [
                float(np.sqrt(((d - truth) ** 2).mean())),
                float((np.abs(d - truth) / truth).mean()),
                float(np.abs(np.log10(d) - np.log10(truth)).mean()),
                *(float((ratio < 1.25**power).mean()) for power in (1, 2, 3)),
            ]
        )

    def figures() -> Figures:
        names = ("RMSE", "REL", "log10", "delta1", "delta2", "delta3")
        means = np.mean(rows, 0) if rows else [float("nan")] * len(names)
        return dict(zip(names, map(float, means), strict=True))

    return Measure(add, figures)

"""What a method can have of two things that it must trade, success and preservation: the area under its front.

A point is the mean of a method's edits at one setting. A front has for each level of success the best preservation that
a setting with at least that success keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Area:
    """The area under a front, and the standard error that resampled pairs give it."""

    value: float
    error: float


def front(success: Sequence[float], kept: Sequence[float]) -> list[int]:
    """The points that no other excels in both, by rising success. Points with NaN are none."""
    known = [i for i in range(len(success)) if not (np.isnan(success[i]) or np.isnan(kept[i]))]
    best: list[int] = []
    for index in sorted(known, key=lambda i: (-success[i], -kept[i])):
        if not best or kept[index] > kept[best[-1]]:
            best.append(index)
    return best[::-1]


def area_under(success: Sequence[float], kept: Sequence[float]) -> float:
    """The best preservation at each level of success from 0 to 1, averaged over the levels; 0 for levels that no
    setting reaches. In the unit of `kept`; the larger, the better; NaN without points.

    >>> area_under([0.5, 1.0], [30.0, 20.0])
    25.0
    """
    places = front(success, kept)
    if not places:
        return float("nan")
    total, before = 0.0, 0.0
    for place in places:
        total += (success[place] - before) * kept[place]
        before = success[place]
    return total


def area_of(success: np.ndarray, kept: np.ndarray, *, rounds: int = 200, seed: int = 0) -> Area:
    """The area under the front of mean points, from values of each [settings, pairs] (NaN: not defined), and its
    standard error over `rounds` resamplings of the pairs."""

    def one(picked: np.ndarray) -> float:
        return area_under(_means(success[:, picked]), _means(kept[:, picked]))

    count = success.shape[1]
    generator = np.random.default_rng(seed)
    spread = np.array([one(generator.integers(count, size=count)) for _ in range(rounds)])
    known = spread[np.isfinite(spread)]
    return Area(one(np.arange(count)), float(known.std()) if known.size else float("nan"))


def _means(values: np.ndarray) -> list[float]:
    known = ~np.isnan(values)
    counts = known.sum(1)
    sums = np.where(known, values, 0).sum(1)
    return [float(total / n) if n else float("nan") for total, n in zip(sums, counts, strict=True)]

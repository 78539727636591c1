"""Attention statistics by step and word, as rows for CSV and JSON."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.files import write_file, write_text
from promptweave.core.typed import checked
from promptweave.editing.recorders import of_word
from promptweave.editing.values import as_json
from promptweave.maps.gallery import Gallery
from promptweave.view.aggregate import enlarged
from promptweave.view.numbers import entropy, evenness, hottest, iou, share


@dataclass(frozen=True)
class Statistic:
    """A word at a step. `entropy`: of its map, in nats; `evenness`: entropy over its maximum; `share`: the fraction of
    the pixels' attention on it (start and end tokens count); `iou`: of its hottest region with a mask, if given.
    """

    step: int
    time: float
    place: str
    word: str
    entropy: float
    evenness: float
    share: float
    iou: float | None = None


@checked
def statistics(
    gallery: Gallery, *, masks: Mapping[str, np.ndarray] | None = None, threshold: int | float = 0.5
) -> list[Statistic]:
    """Statistics of every map and word, start and end tokens included. `masks`: for words, bool [height, width]."""
    known = dict(gallery.every)
    for word in masks or ():
        if of_word(gallery.every, word) is None:
            raise ValueError(f"{word!r} has no map. Choose one of {', '.join(known)}.")
    rows: list[Statistic] = []
    for step, place, head in gallery.maps:
        time = float(gallery.steps[step][1])
        for word in dict.fromkeys((*known, *(masks or ()))):
            values = gallery.of(word, step, place, head)
            found = None if masks is None or word not in masks else covering(values, masks[word], threshold)
            where = place if head is None else f"{place}_head_{head}"
            rows.append(Statistic(step, time, where, word, entropy(values), evenness(values), share(values), found))
    return rows


def covering(values: Float[Tensor, "height width"], mask: np.ndarray, threshold: int | float = 0.5) -> float:
    """IoU of a mask [height, width] and the region where a map, resized to it, exceeds `threshold` of its maximum."""
    if mask.ndim != 2:
        raise ValueError(f"A mask is [height, width]. Received {list(mask.shape)}.")
    grown = enlarged(values[..., None].float(), (mask.shape[0], mask.shape[1]))[..., 0]
    return iou(hottest(grown, threshold), torch.from_numpy(np.asarray(mask) > 0))


@checked
def write_statistics(rows: list[Statistic], path: Path | str) -> Path:
    """Write rows as .csv or .json; returns the path. Raises ValueError for other suffixes."""
    path = Path(path)
    if path.suffix not in (".csv", ".json"):
        raise ValueError(f"Statistics are written as .csv or .json. Received {path}.")
    if path.suffix == ".json":
        return write_text(path, as_json([asdict(row) for row in rows], indent=1) + "\n")

    def table(fresh: Path) -> None:
        with fresh.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Statistic)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)

    return write_file(path, table)

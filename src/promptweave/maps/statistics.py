"""Attention in numbers, step by step and word by word, as rows for CSV and JSON."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.editing.values import as_json
from promptweave.maps.gallery import Gallery
from promptweave.view.aggregate import enlarged
from promptweave.view.numbers import entropy, evenness, hottest, iou, share


@dataclass(frozen=True)
class Statistic:
    """A word at a step: `entropy` of its map in nats, over its largest value `evenness`; `share` of the pixels'
    attention that the word gets (start and end included); `iou` of its hottest part with a mask, if one was given.
    """

    step: int
    time: float
    place: str
    word: str
    entropy: float
    evenness: float
    share: float
    iou: float | None = None


def statistics(
    gallery: Gallery, *, masks: Mapping[str, np.ndarray] | None = None, threshold: int | float = 0.5
) -> list[Statistic]:
    """Of every map, word and the start and end tokens; `masks` [height, width] of words: true where the thing is."""
    known = dict(gallery.every)
    for word in masks or ():
        if word not in known:
            raise ValueError(f"{word!r} has no map. Words: {', '.join(known)}.")
    rows: list[Statistic] = []
    for step, place, head in gallery.maps:
        time = float(gallery.steps[step][1])
        for word in known:
            values = gallery.of(word, step, place, head)
            found = None if masks is None or word not in masks else covering(values, masks[word], threshold)
            where = place if head is None else f"{place}_head_{head}"
            rows.append(Statistic(step, time, where, word, entropy(values), evenness(values), share(values), found))
    return rows


def covering(values: Float[Tensor, "height width"], mask: np.ndarray, threshold: int | float = 0.5) -> float:
    """Intersection over union of a mask [height, width] and of where a map, enlarged to it, is above `threshold`."""
    if mask.ndim != 2:
        raise ValueError(f"A mask is [height, width]. Received {list(mask.shape)}.")
    grown = enlarged(values[..., None].float(), (mask.shape[0], mask.shape[1]))[..., 0]
    return iou(hottest(grown, threshold), torch.from_numpy(np.asarray(mask) > 0))


def write_statistics(rows: list[Statistic], path: Path | str) -> Path:
    """Write .csv or .json."""
    path = Path(path)
    if path.suffix not in (".csv", ".json"):
        raise ValueError(f"Statistics are written as .csv or .json. Received {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(as_json([asdict(row) for row in rows], indent=1) + "\n")
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Statistic)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return path

"""Segmentation by words, measured on images that the world drew: the outlines of their things are exactly known."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from promptweave.evaluate.metrics import iou
from promptweave.maps.segment_parts import enlarged_labels
from promptweave.maps.segmentation import Segmentation, compared, segment
from promptweave.maps.statistics import covering
from promptweave.models.base import Model
from promptweave.world.caption import PLACES, caption
from promptweave.world.render import render
from promptweave.world.scene import Scene, random_scene

REFINED = (0, 1, 2, 4)  # multiplications by self-attention
STEPS = 20  # of a run along an inversion
COLUMNS = ("maps", "self-attention", "mean IoU of things", "IoU of the background", "seconds", "images")
HOT = "hottest half of the map"


@dataclass(frozen=True)
class Row:
    """One image: `way` of looking, `refined` so often (-1: the region above half of the map's maximum, alone), IoU of
    each thing with its outline and of the background, seconds of the look."""

    way: str
    refined: int
    image: int
    things: tuple[float, ...]
    background: float
    seconds: float


def ways_of(model: Model) -> tuple[str, ...]:
    """All ways of looking that suit a model."""
    joint = any(site.kind == "joint" for site in model.sites((8, 8)))
    return ("noised", "direct", *(("concepts output", "concepts cross") if joint else ()))


def options_of(way: str, scene: Scene) -> dict[str, Any]:
    """The options of `segment` for a way: "noised", with times as in "noised 0.1,0.3", an inversion, or concepts."""
    name, _, more = way.partition(" ")
    if name == "noised":
        return {"times": tuple(float(part) for part in more.split(","))} if more else {}
    if name == "concepts":
        place = PLACES[scene.background][0].split()[-1]
        return {"by": "concepts", "concept_space": more, "background": (place,)}
    return {"inversion": way, "steps": STEPS, "guidance": 1}


def bench_segments(
    model: Model, ways: Sequence[str], *, count: int, seed: int = 7000, progress: Callable[[], Any] | None = None
) -> Iterator[tuple[list[Row], Segmentation]]:
    """The rows of each image in each way, as they are made, and its segmentation, refined once."""
    for number in range(count):
        scene = random_scene(random.Random(f"segments {seed} {number}"))
        drawn, masks = render(scene)
        nouns = tuple(thing.noun for thing in scene.things)
        for way in ways:
            begin = time.perf_counter()
            made = segment(
                Image.fromarray(drawn), nouns, prompt=caption(scene), model=model, seed=seed + number,
                **options_of(way, scene),
            )  # fmt: skip
            yield judged(made, way, number, masks, time.perf_counter() - begin), made
            if progress:
                progress()


def judged(made: Segmentation, way: str, number: int, masks: np.ndarray, seconds: float) -> list[Row]:
    """The rows of one image: its maps, unrefined and refined, against the outlines [things, height, width]."""
    found: list[Row] = []
    outside = np.asarray(~masks.any(0))
    for times in REFINED:
        scores = compared(made.maps, made.seen, made.how, len(made.words), refine=times)
        labels = enlarged_labels(scores, made.picture.fitting)
        things = tuple(iou(labels == place, mask) for place, mask in enumerate(masks, 1))
        found.append(Row(way, times, number, things, iou(labels == 0, outside), seconds))
    hot = tuple(covering(made.maps[..., place], mask) for place, mask in enumerate(masks))
    return [*found, Row(way, -1, number, hot, float("nan"), seconds)]


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The means of each way and number of refinements, as a table."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row.way, row.refined), []).append(row)
    return [
        (
            way, HOT if times < 0 else f"A^{times}" if times else "none",
            f"{np.mean([value for row in each for value in row.things]):.3f}",
            "" if times < 0 else f"{np.mean([row.background for row in each]):.3f}",
            f"{np.median([row.seconds for row in each]):.2f}", str(len(each)),
        )
        for (way, times), each in found.items()
    ]  # fmt: skip

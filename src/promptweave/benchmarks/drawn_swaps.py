"""Pairs of drawn scenes that differ in one thing, and the editors of input images that are measured on them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptweave.benchmarks.editors import DRAWN, EDITORS, INJECTED, PLAIN, Editor, Known
from promptweave.benchmarks.measure_given import swap
from promptweave.editing.masks import read_mask
from promptweave.models.base import Model
from promptweave.world.caption import caption
from promptweave.world.render import render
from promptweave.world.scene import Scene

BOTH = (PLAIN, INJECTED)


@dataclass(frozen=True)
class Swap:
    """A drawn scene, the same with another thing, the nouns of both things, and the mask of both."""

    number: int
    scene: Scene
    other: Scene
    old: str
    new: str

    @property
    def known(self) -> Known:
        """What editors may know of it."""
        return Known(caption(self.scene), caption(self.other), self.old, self.new, lambda: self.mask)

    @property
    def mask(self) -> Any:
        """The outlines of both things, rows of zeros and ones."""
        nouns = [[thing.noun for thing in scene.things] for scene in (self.scene, self.other)]
        place = next(i for i, (one, two) in enumerate(zip(*nouns, strict=True)) if one != two)
        return read_mask(np.logical_or(*(render(scene)[1][place] for scene in (self.scene, self.other))))


def swap_of(seed: int, number: int) -> Swap:
    """A seeded pair."""
    return Swap(number, *swap(random.Random(f"inversions {seed} {number}")))


def editors_of(model: Model, names: Sequence[str] = BOTH) -> dict[str, Editor]:
    """The editors of these names for the kind of a model; "all": every one. Raises ValueError for others."""
    known = {name: EDITORS[name] for name in DRAWN[any(site.kind == "joint" for site in model.sites((8, 8)))]}
    if tuple(names) == ("all",):
        return dict(known)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"Editors that can be measured on {model.name}: {'; '.join(known)}; or all. Received "
            f"{'; '.join(unknown) or 'none'}. Name one of these."
        )
    return {name: known[name] for name in names}

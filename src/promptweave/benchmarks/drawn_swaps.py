"""Pairs of drawn scenes that differ in one thing, and the editors of input images that are measured on them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptweave.benchmarks.measure_given import swap
from promptweave.core.control import Control
from promptweave.editing.masks import read_mask
from promptweave.methods import (
    Consist,
    DirectEdit,
    FlowEdit,
    KVEdit,
    LocalBlend,
    MasaCtrl,
    Pix2PixZero,
    PlugAndPlay,
    Replace,
    SemanticGuidance,
    UniEdit,
)
from promptweave.models.base import Model
from promptweave.world.caption import caption
from promptweave.world.render import render
from promptweave.world.scene import Scene

SEGA_STRENGTH = 4.0  # of the new thing, and minus it of the old one


@dataclass(frozen=True)
class Swap:
    """A drawn scene, the same with another thing, the nouns of both things, and the mask of both."""

    number: int
    scene: Scene
    other: Scene
    old: str
    new: str

    @property
    def mask(self) -> Any:
        """The outlines of both things, rows of zeros and ones."""
        nouns = [[thing.noun for thing in scene.things] for scene in (self.scene, self.other)]
        place = next(i for i, (one, two) in enumerate(zip(*nouns, strict=True)) if one != two)
        return read_mask(np.logical_or(*(render(scene)[1][place] for scene in (self.scene, self.other))))


def swap_of(seed: int, number: int) -> Swap:
    """A seeded pair."""
    return Swap(number, *swap(random.Random(f"inversions {seed} {number}")))


Rows = tuple[int, ...]


@dataclass(frozen=True)
class Editor:
    """A way to edit an input image. `controls`: of a pair, for the targets at these rows. `own_prompt`: the target has
    the source's prompt, and the controls change it. `alone`: it has a run of its own, since it acts on all targets.
    `inverted`: it edits what an inversion finds; others are measured with the first of the inversions."""

    controls: Callable[[Swap, Rows], tuple[Control, ...]]
    own_prompt: bool = False
    alone: bool = False
    inverted: bool = True

    def prompt(self, pair: Swap) -> str:
        """The target's prompt."""
        return caption(pair.scene if self.own_prompt else pair.other)


def translated(pair: Swap, rows: Rows) -> tuple[Control, ...]:
    """pix2pix-zero with sentences that have the thing at the prompt's place, as its docs advise."""
    return (Pix2PixZero((caption(pair.scene),), (caption(pair.other),), targets=rows),)


def guided(pair: Swap, rows: Rows) -> tuple[Control, ...]:
    """Semantic guidance from the old thing to the new one."""
    concepts = {f"a {pair.new}": SEGA_STRENGTH, f"a {pair.old}": -SEGA_STRENGTH}
    return (SemanticGuidance(concepts, targets=rows),)


PLAIN, INJECTED = "no control", "Prompt-to-Prompt"
BOTH = (PLAIN, INJECTED)
UNET: dict[str, Editor] = {
    PLAIN: Editor(lambda pair, rows: ()),
    INJECTED: Editor(lambda pair, rows: (Replace(targets=rows),)),
    "Prompt-to-Prompt, blend": Editor(
        lambda pair, rows: (Replace(targets=rows), LocalBlend((pair.old, pair.new), targets=rows))
    ),
    "MasaCtrl": Editor(lambda pair, rows: (MasaCtrl(targets=rows),)),
    "Plug-and-Play": Editor(lambda pair, rows: (PlugAndPlay(targets=rows),)),
    "pix2pix-zero": Editor(translated, own_prompt=True, alone=True),  # its gradients pass through all rows
    "SEGA": Editor(guided, own_prompt=True),
}
JOINT: dict[str, Editor] = {
    PLAIN: UNET[PLAIN],
    INJECTED: Editor(lambda pair, rows: (Replace(targets=rows, joint=0.6),)),
    "Prompt-to-Prompt, blend": Editor(
        lambda pair, rows: (Replace(targets=rows, joint=0.6), LocalBlend((pair.old, pair.new), targets=rows))
    ),
    "Consist": Editor(lambda pair, rows: (Consist(pair.old, targets=rows),)),
    "DirectEdit": Editor(lambda pair, rows: (DirectEdit(targets=rows),)),
    "DirectEdit, blend": Editor(lambda pair, rows: (DirectEdit(targets=rows), LocalBlend(pair.old, targets=rows))),
    "UniEdit": Editor(lambda pair, rows: (UniEdit(),), alone=True),
    "KV-Edit, word": Editor(lambda pair, rows: (KVEdit(words=pair.old),), alone=True),
    "KV-Edit, mask": Editor(lambda pair, rows: (KVEdit(pair.mask),), alone=True),
    "FlowEdit": Editor(lambda pair, rows: (FlowEdit(),), alone=True, inverted=False),
}


def editors_of(model: Model, names: Sequence[str] = BOTH) -> dict[str, Editor]:
    """The editors of these names for the kind of a model; "all": every one. Raises ValueError for others."""
    known = JOINT if any(site.kind == "joint" for site in model.sites((8, 8))) else UNET
    if tuple(names) == ("all",):
        return dict(known)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"Editors that can be measured on {model.name}: {'; '.join(known)}; or all. Received "
            f"{'; '.join(unknown) or 'none'}. Name one of these."
        )
    return {name: known[name] for name in names}

"""Scenes of the embedded world as examples for the three tasks, with exact answers.

Segmentation: every pixel belongs to one of 34 classes, the visible things and, where there are none, the background.
Referring segmentation: a phrase that fits one thing of the scene, by its noun, its colour or its side. Depth: in
metres; the ground comes nearer from the horizon down, a thing stands where its foot does, and of things that overlap
the one drawn later is nearer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptweave.perception.samples import Sample
from promptweave.world.render import SIDE, render
from promptweave.world.scene import BACKGROUNDS, COLOURS, NOUNS, TINTABLE, Scene, random_scene

CLASSES = (*NOUNS, *BACKGROUNDS)
FAR, NEAR = 10.0, 1.0  # metres: the sky, and the ground at the lower edge
BEFORE = 0.8  # a thing in front of another is nearer by this factor at least
TWINS = 0.5  # fraction of the referring scenes with two things of the same noun
UNSEEN = 10**6  # seeds from here on are scenes that no training draws


def drawn(seed: int, index: int, twins: bool = False) -> Scene:
    """Scene number `index` of a seed; with `twins`, half of them show two things of one noun."""
    rng = random.Random(f"{seed}:{index}")
    if twins and rng.random() < TWINS:
        return _twins(rng)
    return random_scene(rng, seen_only=False)


def _twins(rng: random.Random) -> Scene:
    """Two things of the same noun, side by side; of two colours where they can be tinted."""
    scene = random_scene(rng, relation="next to", seen_only=False)
    noun = scene.things[0].noun
    first, second = rng.sample(COLOURS, 2) if noun in TINTABLE else (None, None)
    return scene.with_(0, colour=first).with_(1, noun=noun, colour=second)


def labels(scene: Scene, masks: np.ndarray) -> np.ndarray:
    """The class of each pixel [side, side], an index of CLASSES."""
    found = np.full(masks.shape[1:], CLASSES.index(scene.background), dtype=np.int64)
    for thing, mask in zip(scene.things, masks, strict=True):
        found[mask] = CLASSES.index(thing.noun)
    return found


def phrases(scene: Scene, index: int) -> tuple[str, ...]:
    """The phrases that fit thing number `index` and no other."""
    thing, others = scene.things[index], [t for i, t in enumerate(scene.things) if i != index]
    same = [other for other in others if other.noun == thing.noun]
    found = [] if same else [f"the {thing.noun}"]
    if thing.colour and scene.style != "sketch" and all(other.colour != thing.colour for other in same):
        found.append(f"the {thing.words}")
    if scene.relation == "next to":
        found.append(f"the {thing.noun} on the {'left' if thing.x < 0.5 else 'right'}")
    return tuple(found)


def referred(scene: Scene, rng: random.Random) -> tuple[int, str]:
    """A thing of the scene and a phrase for it."""
    index = rng.randrange(len(scene.things))
    return index, rng.choice(phrases(scene, index))


def depth(scene: Scene, masks: np.ndarray) -> np.ndarray:
    """Metres of each pixel, float32 [side, side]."""
    side = masks.shape[1]
    horizon = int(side * random.Random(scene.detail).uniform(0.55, 0.66))  # as `render.background` draws it

    def ground(row: Any) -> Any:
        """A plane in perspective: FAR up to the horizon, NEAR at the lower edge."""
        share = ((row - horizon) / (side - horizon)).clip(0, 1)
        return 1 / (1 / FAR + share * (1 / NEAR - 1 / FAR))

    found = np.broadcast_to(ground(np.arange(side, dtype=np.float32))[:, None], (side, side)).astype(np.float32)
    nearest = FAR
    for thing, mask in zip(scene.things, masks, strict=True):
        here = float(ground(np.asarray(min(thing.bottom, 1.0) * side)))
        if scene.relation != "next to":
            here = min(here, BEFORE * nearest)
        found[mask] = nearest = here
    return found


@dataclass(frozen=True)
class Scenes:
    """So many scenes of a seed as examples for `task`, each the same whenever it is asked for."""

    task: str
    count: int
    seed: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        return CLASSES

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"There are {self.count} scenes. Received {index}.")
        scene = drawn(self.seed, index, twins=self.task == "refer")
        picture, masks = render(scene, SIDE)
        if self.task == "segment":
            return Sample(picture, labels(scene, masks))
        if self.task == "depth":
            return Sample(picture, depth(scene, masks))
        thing, phrase = referred(scene, random.Random(f"{self.seed}:{index}:phrase"))
        return Sample(picture, masks[thing].astype(np.int64), phrase)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(self.count))

"""An image of the world in words: what the oracle sees, as the scene's caption (`world.caption`)."""

from __future__ import annotations

import numpy as np

from promptweave.world.caption import caption
from promptweave.world.oracle import SEEN, Sight
from promptweave.world.scene import ANIMALS, FOODS, RIDES, TINTABLE, WEARS, Scene, Thing


def described(sight: Sight) -> str | None:
    """The caption of a scene with the one or two things that are seen most clearly; None if there is none."""
    sure = sorted((noun for noun, chance in sight.things.items() if chance > SEEN), key=lambda n: -sight.things[n])
    seen = [noun for noun in sure if sight.regions[noun].any()][:2]
    if not seen:
        return None
    things = [_thing(sight, noun) for noun in seen]
    if len(things) == 1:
        return caption(Scene(sight.background, sight.style, "alone", tuple(things)))
    things.sort(key=lambda thing: thing.x)  # of two neighbours the left one is named first
    relation, pair = _relation(sight, things)
    return caption(Scene(sight.background, sight.style, relation, pair))


def _thing(sight: Sight, noun: str) -> Thing:
    rows, columns = np.nonzero(sight.regions[noun])
    height, width = sight.regions[noun].shape
    size = max(np.ptp(rows) + 1, np.ptp(columns) + 1) / max(height, width)
    colour = sight.colours.get(noun) if noun in TINTABLE else None
    return Thing(noun, float(columns.mean()) / width, float(rows.max() + 1) / height, float(size), colour)


def _relation(sight: Sight, things: list[Thing]) -> tuple[str, tuple[Thing, Thing]]:
    """How two things stand to each other, and both in the order in which a scene holds them."""
    for name, others, flip in (("riding", RIDES, True), ("wearing", WEARS, False), ("eating", FOODS, False)):
        for animal, other in (things, things[::-1]):
            if animal.noun in ANIMALS and other.noun in others and _joined(sight, animal, other, name):
                return name, (other, animal) if flip else (animal, other)
    return "next to", (things[0], things[1])


def _joined(sight: Sight, animal: Thing, other: Thing, name: str) -> bool:
    """Whether the animal is on the ride, under the hat, or at the food."""
    if name == "riding":
        return animal.bottom < other.bottom - 0.04 and abs(animal.x - other.x) < 0.2
    if name == "wearing":
        return True
    return abs(animal.x - other.x) < (animal.size + other.size) / 2 + 0.1

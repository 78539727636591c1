"""The kinds of edit that the world can draw before and after: seeded pairs of scenes that differ in one respect."""

from __future__ import annotations

import random
from collections.abc import Callable

from promptweave.world.scene import (
    ANIMALS,
    BACKGROUNDS,
    COLOURS,
    FOODS,
    RIDES,
    STYLES,
    TINTABLE,
    WEARS,
    Scene,
    random_scene,
    worn,
)

Draw = Callable[[random.Random], tuple[Scene, Scene]]


def object_swap(rng: random.Random) -> tuple[Scene, Scene]:
    """One animal, ride or food becomes another."""
    scene = random_scene(rng, relation=rng.choice(("alone", "riding", "eating")))
    places = [i for i, thing in enumerate(scene.things) if thing.noun in (*ANIMALS, *RIDES, *FOODS)]
    if not places:
        return object_swap(rng)
    index = rng.choice(places)
    group = next(group for group in (ANIMALS, RIDES, FOODS) if scene.things[index].noun in group)
    new = rng.choice([noun for noun in group if noun not in {thing.noun for thing in scene.things}])
    scene = scene.with_(index, colour=None)
    return scene, scene.with_(index, noun=new)


def colour_change(rng: random.Random) -> tuple[Scene, Scene]:
    """A thing gets another colour; half of the time the old one is not said."""
    scene = random_scene(rng, relation=rng.choice(("alone", "riding", "wearing")))
    places = [i for i, thing in enumerate(scene.things) if thing.noun in TINTABLE]
    if not places or scene.style == "sketch":
        return colour_change(rng)
    index = rng.choice(places)
    old, new = rng.sample(COLOURS, 2)
    return scene.with_(index, colour=rng.choice((old, None))), scene.with_(index, colour=new)


def background_change(rng: random.Random) -> tuple[Scene, Scene]:
    """The same things before another background."""
    scene = random_scene(rng)
    return scene, scene.with_(background=rng.choice([name for name in BACKGROUNDS if name != scene.background]))


def style_change(rng: random.Random) -> tuple[Scene, Scene]:
    """A photo becomes a painting, watercolor or sketch."""
    scene = random_scene(rng).with_(style="photo")
    return scene, scene.with_(style=rng.choice(STYLES[1:]))


def worn_thing_added(rng: random.Random) -> tuple[Scene, Scene]:
    """An animal gets a hat or a crown."""
    other = random_scene(rng, relation="wearing")
    other = other.with_(things=(other.things[0], worn(rng.choice(WEARS), other.things[0])))
    return other.with_(things=other.things[:1], relation="alone"), other


def thing_added(rng: random.Random) -> tuple[Scene, Scene]:
    """A thing comes to stand beside another."""
    other = random_scene(rng, relation="next to")
    return other.with_(things=other.things[:1], relation="alone"), other


def thing_removed(rng: random.Random) -> tuple[Scene, Scene]:
    """The food, the worn thing or the neighbour goes."""
    scene = random_scene(rng, relation=rng.choice(("eating", "wearing", "next to")))
    return scene, scene.with_(things=scene.things[:1], relation="alone")


def reweighting(rng: random.Random) -> tuple[Scene, Scene]:
    """The ride, food or worn thing of an animal goes because its word gets a negative weight."""
    scene = random_scene(rng, relation=rng.choice(("riding", "eating", "wearing")))
    return scene, scene.with_(things=tuple(t for t in scene.things if t.noun in ANIMALS), relation="alone")


KINDS: dict[str, Draw] = {
    "object swap": object_swap,
    "colour change": colour_change,
    "background change": background_change,
    "style change": style_change,
    "worn thing added": worn_thing_added,
    "thing added": thing_added,
    "thing removed": thing_removed,
    "re-weighting to -2": reweighting,
}

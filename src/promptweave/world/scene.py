"""Scenes of the synthetic world as data, and how to draw one at random.

A scene determines an image: background, style, relation and the placed things. `render.render` and
`caption.caption` are deterministic functions of it, so changing one field gives the exact counterfactual image.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

ANIMALS = (
    "cat", "dog", "lion", "tiger", "zebra", "horse", "rabbit", "penguin", "fox", "bear", "panda", "squirrel", "bird",
)  # fmt: skip
RIDES = ("bike", "car", "bus", "scooter", "motorcycle", "skateboard")
FOODS = ("burger", "pizza", "cake", "apple")
THINGS = ("tree", "house", "castle")
WEARS = ("hat", "crown")
NOUNS = ANIMALS + RIDES + FOODS + THINGS + WEARS
COLOURS = ("red", "yellow", "green", "blue")
TINTABLE = ("bike", "car", "scooter", "motorcycle", "apple", "house", "hat", "bird")
BACKGROUNDS = ("beach", "grass", "snow", "desert", "night", "forest")
STYLES = ("photo", "painting", "watercolor", "sketch")
RELATIONS = ("alone", "riding", "eating", "wearing", "next to")

STYLE_SHARES = (0.64, 0.12, 0.12, 0.12)
RELATION_SHARES = (0.30, 0.21, 0.15, 0.15, 0.19)
COLOURED_SHARE = 0.55  # of the things that can be tinted; the others keep the sprite's colour and get no colour word
HELD_OUT_SHARE = 0.10


@dataclass(frozen=True)
class Thing:
    """One thing in a scene. Centre `x`, lower edge `bottom` and longer side `size` are fractions of the image."""

    noun: str
    x: int | float
    bottom: int | float
    size: int | float
    colour: str | None = None
    flip: bool = False

    @property
    def words(self) -> str:
        """The noun with its colour, e.g. "red car"."""
        return f"{self.colour} {self.noun}" if self.colour else self.noun


@dataclass(frozen=True)
class Scene:
    """A scene as data. `things` are drawn in order: later ones occlude earlier ones. `detail` seeds the background."""

    background: str
    style: str
    relation: str
    things: tuple[Thing, ...]
    detail: int = 0

    def with_(self, index: int | None = None, **changes: object) -> Scene:
        """The counterfactual scene: fields of the scene changed, or, with `index`, fields of that thing.

        >>> scene = Scene("snow", "photo", "alone", (Thing("cat", 0.5, 0.9, 0.6),))
        >>> scene.with_(0, noun="lion").things[0].noun
        'lion'
        """
        if index is None:
            return replace(self, **changes)  # pyright: ignore[reportArgumentType]
        things = list(self.things)
        things[index] = replace(things[index], **changes)  # pyright: ignore[reportArgumentType]
        return replace(self, things=tuple(things))

    def adding(self, thing: Thing, relation: str) -> Scene:
        """The same layout with one more thing, drawn on top."""
        return replace(self, things=(*self.things, thing), relation=relation)


def held_out(first: str, second: str) -> bool:
    """Whether the pair (animal and ride, or thing and colour) is held out of training to measure composition."""
    digest = hashlib.sha256(f"22:{first}|{second}".encode()).digest()
    return digest[0] < 256 * HELD_OUT_SHARE


def has_held_out_pair(scene: Scene) -> bool:
    """Whether the scene shows a held-out pair."""
    pairs = [(thing.noun, thing.colour) for thing in scene.things if thing.colour]
    if scene.relation == "riding":
        pairs.append((scene.things[1].noun, scene.things[0].noun))
    return any(held_out(first, second) for first, second in pairs if second)


def random_scene(rng: random.Random, *, relation: str | None = None, seen_only: bool = True) -> Scene:
    """A random scene drawn with `rng`; `seen_only` excludes held-out pairs."""
    while True:
        scene = _draw(rng, relation or rng.choices(RELATIONS, RELATION_SHARES)[0])
        if not (seen_only and has_held_out_pair(scene)):
            return scene


def two_colours(rng: random.Random, *, seen_only: bool = False) -> Scene:
    """Two things of different colours side by side, in a style that shows colour; `seen_only` as in `random_scene`."""
    while True:
        scene = random_scene(rng, relation="next to")
        if not all(thing.noun in TINTABLE for thing in scene.things):
            continue
        for index, colour in enumerate(rng.sample(COLOURS, 2)):
            scene = scene.with_(index, colour=colour)
        if not (seen_only and has_held_out_pair(scene)):
            return scene.with_(style="photo") if scene.style == "sketch" else scene


def _draw(rng: random.Random, relation: str) -> Scene:
    things = tuple(_LAYOUTS[relation](rng))
    style = rng.choices(STYLES, STYLE_SHARES)[0]
    return Scene(rng.choice(BACKGROUNDS), style, relation, things, rng.randrange(1 << 30))


def _pick(rng: random.Random, nouns: Iterable[str], x: int | float, bottom: int | float, size: int | float) -> Thing:
    noun = rng.choice(tuple(nouns))
    colour = rng.choice(COLOURS) if noun in TINTABLE and rng.random() < COLOURED_SHARE else None
    return Thing(noun, x, bottom, size, colour)


def _alone(rng: random.Random) -> list[Thing]:
    nouns = ANIMALS if rng.random() < 0.5 else RIDES + FOODS + THINGS + WEARS
    return [_pick(rng, nouns, rng.uniform(0.4, 0.6), rng.uniform(0.84, 0.94), rng.uniform(0.54, 0.70))]


def _riding(rng: random.Random) -> list[Thing]:
    x, bottom, size = rng.uniform(0.42, 0.58), rng.uniform(0.90, 0.97), rng.uniform(0.60, 0.72)
    ride = _pick(rng, RIDES, x, bottom, size)
    return [ride, _pick(rng, ANIMALS, x + rng.uniform(-0.03, 0.03), bottom - 0.55 * size, 0.72 * size)]


def _eating(rng: random.Random) -> list[Thing]:
    x, bottom, size = rng.uniform(0.60, 0.68), rng.uniform(0.86, 0.94), rng.uniform(0.50, 0.60)
    animal = _pick(rng, ANIMALS, x, bottom, size)
    return [animal, _pick(rng, FOODS, x - 0.36, bottom + rng.uniform(0.0, 0.03), rng.uniform(0.28, 0.34))]


def _wearing(rng: random.Random) -> list[Thing]:
    animal = _pick(rng, ANIMALS, rng.uniform(0.42, 0.58), rng.uniform(0.90, 0.96), rng.uniform(0.54, 0.64))
    return [animal, worn(rng.choice(WEARS), animal, _colour_for_wear(rng))]


def _colour_for_wear(rng: random.Random) -> str | None:
    return rng.choice(COLOURS) if rng.random() < COLOURED_SHARE else None


def _next_to(rng: random.Random) -> list[Thing]:
    bottom = rng.uniform(0.84, 0.92)
    left = _pick(rng, ANIMALS + RIDES, rng.uniform(0.25, 0.29), bottom, rng.uniform(0.40, 0.48))
    rest = tuple(noun for noun in ANIMALS + THINGS + RIDES if noun != left.noun)
    return [left, _pick(rng, rest, rng.uniform(0.71, 0.75), bottom + rng.uniform(-0.02, 0.02), rng.uniform(0.40, 0.48))]


_LAYOUTS = {"alone": _alone, "riding": _riding, "eating": _eating, "wearing": _wearing, "next to": _next_to}

# The head of each sprite: centre of the crown as fractions of the sprite's box, from the left
# and from the top, and the width of what is worn as a fraction of the animal's size.
HEADS = {
    "cat": (0.19, 0.14, 0.44), "dog": (0.32, 0.06, 0.44), "lion": (0.50, 0.10, 0.56), "tiger": (0.26, 0.10, 0.42),
    "zebra": (0.22, 0.08, 0.42), "horse": (0.22, 0.08, 0.42), "rabbit": (0.30, 0.20, 0.46),
    "penguin": (0.50, 0.07, 0.50),
    "fox": (0.50, 0.20, 0.52), "bear": (0.50, 0.10, 0.54), "panda": (0.50, 0.10, 0.54), "squirrel": (0.20, 0.12, 0.44),
    "bird": (0.33, 0.06, 0.46),
}  # fmt: skip
# Height over width of the sprites' boxes, where it is not close to 1.
ASPECTS = {"dog": 0.89, "tiger": 0.79, "bear": 0.89, "panda": 0.89, "cat": 0.96, "squirrel": 0.96}


def worn(noun: str, animal: Thing, colour: str | None = None) -> Thing:
    """A hat or crown on the head of `animal`."""
    across, down, share = HEADS[animal.noun]
    height = animal.size * ASPECTS.get(animal.noun, 1.0)
    across = 1.0 - across if animal.flip else across
    brim = animal.bottom - height * (1.0 - down) + 0.02
    return Thing(
        noun, animal.x + animal.size * (across - 0.5), brim, animal.size * share, colour if noun == "hat" else None
    )

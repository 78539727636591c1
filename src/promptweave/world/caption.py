"""Captions of scenes, in several wordings."""

from __future__ import annotations

import random

from promptweave.world.scene import Scene, Thing

SYNONYMS = {"bike": ("bike", "bicycle"), "motorcycle": ("motorcycle", "motorbike"), "burger": ("burger", "hamburger")}
PLACES = {
    "beach": ("on a beach", "at the beach"),
    "grass": ("on the grass", "in a field"),
    "snow": ("in the snow",),
    "desert": ("in the desert",),
    "night": ("at night",),
    "forest": ("in a forest", "in the forest"),
}
MEDIA = {
    "photo": ("a photo of",),
    "painting": ("a painting of", "an oil painting of"),
    "watercolor": ("a watercolor painting of", "a watercolor of"),
    "sketch": ("a sketch of", "a pencil sketch of"),
}
JOINS = {
    "riding": ("riding", "riding", "on"),
    "eating": ("eating",),
    "wearing": ("wearing", "with"),
    "next to": ("next to", "and"),
}
BACKGROUND_SHARE = 0.85
PHOTO_PREFIX_SHARE = 0.45


def article(words: str) -> str:
    """The words with their indefinite article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(scene: Scene, rng: random.Random | None = None, *, place: bool = True) -> str:
    """A caption of the scene. Without `rng`: the first wording of everything, always with medium and, unless `place` is
    False, with the place.

    >>> from promptweave.world.scene import Scene, Thing
    >>> caption(Scene("snow", "photo", "alone", (Thing("cat", 0.5, 0.9, 0.6),)))
    'a photo of a cat in the snow'
    """

    def choose(options: tuple[str, ...]) -> str:
        return rng.choice(options) if rng else options[0]

    def name(thing: Thing) -> str:
        noun = choose(SYNONYMS.get(thing.noun, (thing.noun,)))
        return article(f"{thing.colour} {noun}" if thing.colour else noun)

    text = " ".join(_clause(scene, name, choose))
    if rng is None or scene.style != "photo" or rng.random() < PHOTO_PREFIX_SHARE:
        text = f"{choose(MEDIA[scene.style])} {text}"
    if place and (rng is None or rng.random() < BACKGROUND_SHARE):
        text = f"{text} {choose(PLACES[scene.background])}"
    return text


def _clause(scene: Scene, name, choose) -> list[str]:  # noqa: ANN001
    if scene.relation == "alone":
        return [name(scene.things[0])]
    first, second = scene.things
    if scene.relation == "riding":  # the ride is drawn first, but the rider is named first
        first, second = second, first
    return [name(first), choose(JOINS[scene.relation]), name(second)]

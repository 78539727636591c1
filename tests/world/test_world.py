"""Scenes, captions and pictures: deterministic, consistent with each other, and true counterfactuals."""

from __future__ import annotations

import random

import numpy as np
import pytest

from promptweave.world.caption import MEDIA, PLACES, SYNONYMS, caption
from promptweave.world.render import SIDE, render
from promptweave.world.scene import (
    ANIMALS,
    BACKGROUNDS,
    COLOURS,
    NOUNS,
    RELATIONS,
    RIDES,
    STYLES,
    TINTABLE,
    Scene,
    Thing,
    has_held_out_pair,
    held_out,
    random_scene,
    worn,
)
from promptweave.world.sprites import sprite

CAT = Thing("cat", 0.5, 0.9, 0.6)
PLAIN = Scene("snow", "photo", "alone", (CAT,), 7)


def test_a_scene_is_data():
    assert random_scene(random.Random(3)) == random_scene(random.Random(3))
    assert random_scene(random.Random(3)) != random_scene(random.Random(4))
    first, again = render(PLAIN), render(PLAIN)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (SIDE, SIDE, 3) and first[0].dtype == np.uint8
    assert first[1].shape == (1, SIDE, SIDE) and 0.05 < first[1].mean() < 0.5


@pytest.mark.parametrize(
    "change", [{"noun": "lion"}, {"x": 0.42}, {"flip": True}, {"size": 0.5}], ids=lambda change: next(iter(change))
)
def test_changing_a_thing_changes_nothing_outside_it(change):
    """The exact counterfactual: outside both regions the pictures are equal."""
    (before, old), (after, new) = render(PLAIN), render(PLAIN.with_(0, **change))
    near = [np.asarray(m.any(0)) for m in (old, new)]
    edge = [np.maximum.reduce([np.roll(m, (y, x), (0, 1)) for y in range(-3, 4) for x in range(-3, 4)]) for m in near]
    outside = ~(edge[0] | edge[1])  # the soft edges of a sprite reach over its region
    assert outside.mean() > 0.3 and np.array_equal(before[outside], after[outside])
    assert not np.array_equal(before, after)


def test_colour_changes_the_thing_only_and_turns_its_hue():
    car = Scene("grass", "photo", "alone", (Thing("car", 0.5, 0.9, 0.6, "red"),))
    (red, region), (blue, _) = render(car), render(car.with_(0, colour="blue"))
    changed = np.abs(red.astype(int) - blue).max(-1) > 8
    assert changed[region[0]].mean() > 0.3 and changed[~region[0]].mean() < 0.01
    inside = region[0] & changed
    assert red[inside].mean(0).argmax() == 0 and blue[inside].mean(0).argmax() == 2


def test_background_and_style_change_what_they_say():
    elsewhere, regions = render(PLAIN.with_(background="night"))
    inner = regions[0] & np.roll(regions[0], 3, 0) & np.roll(regions[0], -3, 0) & np.roll(regions[0], 3, 1)
    assert np.abs(render(PLAIN)[0][inner].astype(int) - elsewhere[inner]).mean() < 0.5  # sprites are a little clear
    pictures = [render(PLAIN.with_(style=style))[0] for style in STYLES]
    assert all(np.abs(a.astype(int) - b).mean() > 3 for i, a in enumerate(pictures) for b in pictures[:i])
    sketch = pictures[STYLES.index("sketch")].astype(int)
    assert np.abs(sketch - sketch.mean(-1, keepdims=True)).mean() < 6, "a sketch is nearly grey"


def test_later_things_hide_earlier_ones():
    both = PLAIN.adding(Thing("tree", 0.5, 0.9, 0.6), "next to")
    masks = render(both)[1]
    assert not (masks[0] & masks[1]).any() and masks[0].sum() < render(PLAIN)[1][0].sum()


def test_what_is_worn_sits_on_the_head():
    for animal in ANIMALS:
        for flip in (False, True):
            wearer = Thing(animal, 0.5, 0.92, 0.6, flip=flip)
            scene = Scene("grass", "photo", "wearing", (wearer, worn("crown", wearer)))
            body, crown = render(scene)[1]
            assert crown.any() and body.any()
            top = np.argwhere(body).min(0)[0]
            assert np.argwhere(crown).mean(0)[0] < top + 0.3 * SIDE, animal


def test_every_noun_has_a_picture_and_colours_are_told_apart():
    for noun in NOUNS:
        image = sprite(noun)
        assert image.mode == "RGBA" and max(image.size) > 100
    for noun in TINTABLE:
        shades = {colour: np.asarray(sprite(noun, colour)).astype(float) for colour in COLOURS}
        pairs = [(a, b) for i, a in enumerate(COLOURS) for b in COLOURS[:i]]
        assert all(np.abs(shades[a] - shades[b]).mean() > 4 for a, b in pairs), noun
    with pytest.raises(ValueError, match="no thing 'dragon'"):
        sprite("dragon")


def test_captions_say_what_is_there():
    """Every part of the scene is named in its full caption; random wordings say no other thing."""
    rng = random.Random(0)
    for _ in range(400):
        scene = random_scene(rng)
        full = caption(scene)
        for thing in scene.things:
            assert thing.words in full
        assert any(place in full for place in PLACES[scene.background])
        assert any(medium in full for medium in MEDIA[scene.style])
        text = caption(scene, rng).split()
        named = {noun for noun in NOUNS for word in SYNONYMS.get(noun, (noun,)) if word in text}
        assert named == {thing.noun for thing in scene.things}


def test_wordings_vary():
    scene = Scene("grass", "painting", "riding", (Thing("bike", 0.5, 0.9, 0.6, "red"), CAT))
    rng = random.Random(1)
    assert len({caption(scene, rng) for _ in range(100)}) > 12
    assert caption(scene) == "a painting of a cat riding a red bike on the grass"


def test_held_out_pairs_are_kept_out_of_training():
    """About a tenth of the pairs never occur in training scenes, and each noun and colour still does."""
    rng = random.Random(2)
    scenes = [random_scene(rng) for _ in range(3000)]
    assert not any(has_held_out_pair(scene) for scene in scenes)
    assert {thing.noun for scene in scenes for thing in scene.things} == set(NOUNS)
    assert {scene.relation for scene in scenes} == set(RELATIONS)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    pairs = [(a, b) for a in ANIMALS for b in RIDES] + [(a, b) for a in TINTABLE for b in COLOURS]
    share = np.mean([held_out(a, b) for a, b in pairs])
    assert 0.04 < share < 0.2
    free = [random_scene(rng, seen_only=False) for _ in range(600)]
    assert any(has_held_out_pair(scene) for scene in free)

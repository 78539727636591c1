"""The quality of an embedded model: the oracle judges images of seeded prompts."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from promptweave.benchmarks.judging import oracle, pictures, share
from promptweave.core.record_maps import RecordedMaps, RecordMaps
from promptweave.editing.plan import usual
from promptweave.evaluate.metrics import iou
from promptweave.models.base import Model
from promptweave.sampling.loop import noise_for, sample
from promptweave.view.heat import heat
from promptweave.world.caption import caption
from promptweave.world.oracle import Sight
from promptweave.world.scene import RELATIONS, Scene, has_held_out_pair, random_scene, two_colours

MAP_THRESHOLD = 0.5  # fraction of a map's maximum above which it counts as the word's region


def things_seen(scene: Scene, sight: Sight) -> bool:
    """All things of the scene are there."""
    return all(sight.has(thing.noun) for thing in scene.things)


def colours_seen(scene: Scene, sight: Sight) -> bool:
    """All things are there, in the right colours."""
    return all(sight.has(thing.noun, thing.colour) for thing in scene.things)


def placed_right(scene: Scene, sight: Sight) -> bool:
    """Both things are there: a rider or hat above, a neighbour or food beside."""
    if not things_seen(scene, sight):
        return False
    first, second = (np.argwhere(sight.regions[thing.noun]) for thing in scene.things)
    if not len(first) or not len(second):
        return False
    difference = second.mean(0) - first.mean(0)
    if scene.relation in ("riding", "wearing"):
        return bool(difference[0] < 0)
    return bool(abs(difference[1]) > abs(difference[0]))


def _coloured(scene: Scene, sight: Sight) -> bool | None:
    """Whether the colours are right; None for captions without colours and for sketches."""
    if scene.style == "sketch" or not any(thing.colour for thing in scene.things):
        return None
    return colours_seen(scene, sight)


def background_seen(scene: Scene, sight: Sight) -> bool:
    """The background is right."""
    return sight.background == scene.background


def style_seen(scene: Scene, sight: Sight) -> bool:
    """The style is right."""
    return sight.style == scene.style


# Figure -> (families of prompts, judge; the judge returns None if it does not apply).
JUDGES: dict[str, tuple[tuple[str, ...], Callable[[Scene, Sight], bool | None]]] = {
    "one thing": (("one",), things_seen),
    "both of two things": (("two",), things_seen),
    "relation of two things": (("two",), placed_right),
    "colours": (("one", "two"), _coloured),
    "two things of two colours": (("two colours",), colours_seen),
    "background": (("one", "two"), background_seen),
    "style": (("one", "two"), style_seen),
    "things of held-out pairs": (("held out",), things_seen),
}


def draw(family: str, rng: random.Random) -> Scene:
    """A scene with one thing, two things, two things of two colours, or a held-out pair."""
    if family == "two colours":
        return two_colours(rng).with_(style="photo")
    while True:
        scene = random_scene(
            rng,
            relation={"one": "alone", "two": rng.choice(RELATIONS[1:])}.get(family),
            seen_only=family != "held out",
        )
        if family != "held out" or has_held_out_pair(scene):
            return scene


def score(
    model: Model, *, count: int = 200, steps: int | None = None, guidance: int | float | None = None, seed: int = 1000
) -> dict[str, float]:
    """Fractions of correct images over `count` prompts of each family, and the overlap of word maps with things.

    Steps and guidance default to the model's.
    """
    steps, guidance = usual(model, steps, guidance)
    judged: dict[str, list[tuple[Scene, Sight]]] = {}
    for family in ("one", "two", "two colours", "held out"):
        rng = random.Random(f"{family} {seed}")
        scenes = [draw(family, rng) for _ in range(count)]
        made = pictures(model, [caption(scene) for scene in scenes], seed, steps, guidance)
        judged[family] = list(zip(scenes, oracle().look(made), strict=True))
    figures: dict[str, float] = {}
    for name, (families, judge) in JUDGES.items():
        found = [judge(scene, sight) for family in families for scene, sight in judged[family]]
        figures[name] = share([right for right in found if right is not None])
    figures["overlap of maps and things (mIoU)"] = map_overlap(
        model, count=min(count, 40), steps=steps, guidance=guidance, seed=seed
    )
    return figures


def map_overlap(model: Model, *, count: int, steps: int, guidance: int | float, seed: int) -> float:
    """Mean IoU of each noun's thresholded cross-attention map and the thing's region according to the oracle."""
    rng, overlaps = random.Random(f"maps {seed}"), []
    for number in range(count):
        scene = random_scene(rng)
        made = sample(
            model,
            [caption(scene)],
            noise=noise_for(model, seed + number),
            steps=steps,
            guidance=guidance,
            controls=[RecordMaps()],
        )
        recording = made.hooks[0]
        assert isinstance(recording, RecordedMaps)
        attention, picture = recording.maps.mean(0)[0], made.pictures[0, 0]
        sight = oracle().look(picture[None])[0]
        for thing in scene.things:
            if sight.has(thing.noun) and sight.regions[thing.noun].any():
                tokens = list(made.run.words[0].find(f"{thing.noun}#1"))
                hot = heat(attention[..., tokens].sum(-1), (picture.shape[1], picture.shape[0])) > MAP_THRESHOLD
                overlaps.append(iou(hot, sight.regions[thing.noun]))
    return float(np.mean(overlaps)) if overlaps else float("nan")

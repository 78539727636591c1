"""How good the embedded model is: the oracle judges pictures of seeded prompts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from promptweave.apps.judging import oracle, pictures, share
from promptweave.core.record import Record, Recording
from promptweave.evaluate.metrics import iou
from promptweave.evaluate.oracle import Sight
from promptweave.models.base import Model
from promptweave.sampling.loop import noise_for, sample
from promptweave.view.heat import heat
from promptweave.world.caption import caption
from promptweave.world.scene import RELATIONS, Scene, has_held_out_pair, random_scene

MAP_THRESHOLD = 0.5  # of its maximum: where a word's map counts as its region


@dataclass(frozen=True)
class Kind:
    """A family of prompts: how scenes are drawn, and what must be seen in a scene's picture."""

    name: str
    draw: Callable[[random.Random], Scene]
    right: Callable[[Scene, Sight], bool]


def things_seen(scene: Scene, sight: Sight) -> bool:
    """All things of the scene are there."""
    return all(sight.has(thing.noun) for thing in scene.things)


def colours_seen(scene: Scene, sight: Sight) -> bool:
    """All things are there, in the colours asked for."""
    return all(sight.has(thing.noun, thing.colour) for thing in scene.things)


def placed_right(scene: Scene, sight: Sight) -> bool:
    """Both things are there, the rider or hat above, the neighbour and the food beside."""
    if not things_seen(scene, sight):
        return False
    first, second = (np.argwhere(sight.regions[thing.noun]) for thing in scene.things)
    if not len(first) or not len(second):
        return False
    difference = second.mean(0) - first.mean(0)
    if scene.relation in ("riding", "wearing"):
        return bool(difference[0] < 0)
    return bool(abs(difference[1]) > abs(difference[0]))


def _one(rng: random.Random) -> Scene:
    return random_scene(rng, relation="alone")


def _two(rng: random.Random) -> Scene:
    return random_scene(rng, relation=rng.choice(RELATIONS[1:]))


def _coloured(rng: random.Random) -> Scene:
    while True:
        scene = random_scene(rng)
        if any(thing.colour for thing in scene.things) and scene.style != "sketch":
            return scene


def _held_out(rng: random.Random) -> Scene:
    while True:
        scene = random_scene(rng, seen_only=False)
        if has_held_out_pair(scene):
            return scene


KINDS = (
    Kind("one thing", _one, things_seen),
    Kind("both of two things", _two, things_seen),
    Kind("relation of two things", _two, placed_right),
    Kind("colour", _coloured, colours_seen),
    Kind("background", random_scene, lambda scene, sight: sight.background == scene.background),
    Kind("style", random_scene, lambda scene, sight: sight.style == scene.style),
    Kind("things of held-out pairs", _held_out, things_seen),
)


def score(
    model: Model, *, count: int = 200, steps: int = 50, guidance: float = 7.5, seed: int = 1000
) -> dict[str, float]:
    """Shares of right pictures, over `count` prompts of each kind, and the overlap of words' maps with things."""
    figures: dict[str, float] = {}
    for kind in KINDS:
        rng = random.Random(f"{kind.draw.__name__} {seed}")
        scenes = [kind.draw(rng) for _ in range(count)]
        made = pictures(model, [caption(scene) for scene in scenes], seed, steps, guidance)
        figures[kind.name] = share([kind.right(s, sight) for s, sight in zip(scenes, oracle().look(made), strict=True)])
    figures["overlap of maps and things (mIoU)"] = map_overlap(
        model, count=min(count, 60), steps=steps, guidance=guidance, seed=seed
    )
    return figures


def map_overlap(model: Model, *, count: int, steps: int, guidance: float, seed: int) -> float:
    """Mean IoU of each noun's thresholded cross-attention with the region where the oracle sees the thing."""
    rng, overlaps = random.Random(f"maps {seed}"), []
    for number in range(count):
        scene = random_scene(rng)
        made = sample(
            model,
            [caption(scene)],
            noise=noise_for(model, seed + number),
            steps=steps,
            guidance=guidance,
            controls=[Record()],
        )
        recording = made.hooks[0]
        assert isinstance(recording, Recording)
        attention, picture = recording.maps.mean(0)[0], made.pictures[0, 0]
        sight = oracle().look(picture[None])[0]
        for thing in scene.things:
            if sight.has(thing.noun) and sight.regions[thing.noun].any():
                tokens = list(made.run.words[0].find(f"{thing.noun}#1"))
                hot = heat(attention[..., tokens].sum(-1), (picture.shape[1], picture.shape[0])) > MAP_THRESHOLD
                overlaps.append(iou(hot, sight.regions[thing.noun]))
    return float(np.mean(overlaps)) if overlaps else float("nan")

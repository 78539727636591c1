"""Network-to-network translation, judged by the oracle on scenes that no training has seen.

Every figure has its exact answer in the world: a caption says what an image must show, and the counterfactual scene is
what an exchange should give, pixel by pixel.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptweave.benchmarks.judging import oracle, share
from promptweave.evaluate.metrics import psnr
from promptweave.translation.pairs import DAYS, DOMAINS, labels_of, one_thing
from promptweave.translation.translator import Translator
from promptweave.world.caption import caption
from promptweave.world.oracle import Sight
from promptweave.world.render import render
from promptweave.world.scene import BACKGROUNDS, COLOURS, NOUNS, STYLES, TINTABLE, Scene

LIKE = 4  # images of one caption, whose differences are the diversity
PARTS = ("thing", "colour", "background", "style")


@dataclass(frozen=True)
class Exchanged:
    """A scene, the scene after an exchange, and what changed: a noun, colour, background or style."""

    before: Scene
    after: Scene
    what: str


def drawn(scene: Scene) -> np.ndarray:
    """The scene's image, uint8."""
    return render(scene)[0]


def right(scene: Scene, sight: Sight) -> dict[str, bool]:
    """Which parts of a scene an image shows; a colour is judged where the scene has one, and not in sketches."""
    (thing,) = scene.things
    found = {
        "thing": [noun for noun in NOUNS if sight.has(noun)] == [thing.noun],
        "background": sight.background == scene.background,
        "style": sight.style == scene.style,
    }
    if thing.colour and scene.style != "sketch":
        found["colour"] = sight.colours.get(thing.noun) == thing.colour
    return found


def exchanges(rng: random.Random, count: int) -> list[Exchanged]:
    """Seeded exchanges: the four kinds in turn."""
    made: list[Exchanged] = []
    while len(made) < count:
        scene, what = one_thing(rng), PARTS[len(made) % len(PARTS)]
        (thing,) = scene.things
        if what == "thing":
            nouns = [n for n in NOUNS if n != thing.noun and (thing.colour is None or n in TINTABLE)]
            after = scene.with_(0, noun=rng.choice(nouns))
        elif what == "colour":
            if not thing.colour or scene.style == "sketch":
                continue
            after = scene.with_(0, colour=rng.choice([c for c in COLOURS if c != thing.colour]))
        else:
            values = BACKGROUNDS if what == "background" else STYLES
            after = _with(scene, what, rng.choice([one for one in values if one != getattr(scene, what)]))
        made.append(Exchanged(scene, after, what))
    return made


def _with(scene: Scene, what: str, value: str) -> Scene:
    return scene.with_(background=value) if what == "background" else scene.with_(style=value)


def distance(pictures: np.ndarray) -> float:
    """Mean absolute difference of pairs of images, of values in [0, 1]."""
    values = pictures.astype(np.float32) / 255
    pairs = [(i, j) for i in range(len(values)) for j in range(i)]
    return float(np.mean([np.abs(values[i] - values[j]).mean() for i, j in pairs]))


def centre(sight: Sight, noun: str) -> np.ndarray | None:
    """The middle of a thing, as fractions of the image."""
    region = sight.regions[noun]
    return None if not region.any() else np.argwhere(region).mean(0) / region.shape


def apart(first: Sight, second: Sight, one: str, other: str) -> float:
    """How far a thing of one image is from a thing of another; NaN if one of them shows none."""
    here, there = centre(first, one), centre(second, other)
    return float("nan") if here is None or there is None else float(np.linalg.norm(here - there))


def mean(values: Sequence[float | bool]) -> float:
    """The mean of those that are numbers."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def measure_text(translator: Translator, *, count: int, seed: int, progress: Any = None) -> dict[str, float]:
    """Text to image: what samples show of their captions, how different they are, and what an exchange keeps."""
    rng = random.Random(f"net2net {seed}")
    tick = progress or (lambda: None)
    return {
        **_samples(translator, [one_thing(rng) for _ in range(count)], seed, tick),
        **_exchanges(translator, exchanges(rng, count), seed, tick),
    }


def _samples(translator: Translator, scenes: list[Scene], seed: int, tick: Callable[[], Any]) -> dict[str, float]:
    verdicts: dict[str, list[bool]] = {name: [] for name in (*PARTS, "all of it")}
    kept: dict[str, list[bool]] = {name: [] for name in ("thing", "all of it")}
    inner: list[float] = []
    real: list[float] = []
    close: list[float] = []
    for number, scene in enumerate(scenes):
        made = translator.sample(caption(scene), count=LIKE, seed=seed * 100_000 + number).pictures[0]
        picture = drawn(scene)
        again = translator.target.decode(translator.target.encode([picture]))
        close.append(psnr(picture, again[0]))
        *sights, held = oracle().look(np.concatenate([made, again]))
        for sight in sights:
            found = right(scene, sight)
            for name, good in found.items():
                verdicts[name].append(good)
            verdicts["all of it"].append(all(found.values()))
        found = right(scene, held)
        kept["thing"].append(found["thing"])
        kept["all of it"].append(all(found.values()))
        inner.append(distance(made))
        real.append(distance(np.stack([drawn(_alike(scene, seed * 100_000 + number, i)) for i in range(LIKE)])))
        tick()
    return {
        **{f"samples: {name}": share(values) for name, values in verdicts.items()},
        "diversity": mean(inner), "diversity of drawn scenes": mean(real),
        **{f"codes: {name}": share(values) for name, values in kept.items()},
        "codes: PSNR": mean(close),
    }  # fmt: skip


def _alike(scene: Scene, seed: int, number: int) -> Scene:
    """Another scene with the same caption."""
    rng = random.Random(f"{seed} {number}")
    other = one_thing(rng)
    (thing,), (place,) = scene.things, other.things
    same = {"noun": thing.noun, "colour": thing.colour}
    return other.with_(background=scene.background, style=scene.style).with_(0, x=place.x, **same)


def _exchanges(translator: Translator, wanted: list[Exchanged], seed: int, tick: Callable[[], Any]) -> dict[str, float]:
    names = ("changed", "kept", "PSNR", "PSNR of new samples", "moved", "moved in new samples", "cycle: PSNR")
    found: dict[str, list[float | bool]] = {name: [] for name in names}
    for number, one in enumerate(wanted):
        picture, answer = drawn(one.before), drawn(one.after)
        before, after = caption(one.before), caption(one.after)
        _, held, made = translator.exchange(picture, before, after).pictures[0]
        fresh = translator.sample(after, count=1, seed=seed * 100_000 + number).pictures[0, 0]
        back = translator.exchange(made, after, before).pictures[0, 2]
        truth, sight, other = oracle().look(np.stack([answer, made, fresh]))
        verdict, noun = right(one.after, sight), one.after.things[0].noun
        found["changed"].append(verdict[one.what])
        found["kept"].append(all(good for name, good in verdict.items() if name != one.what))
        found["PSNR"].append(psnr(answer, made))
        found["PSNR of new samples"].append(psnr(answer, fresh))
        found["moved"].append(apart(truth, sight, noun, noun))
        found["moved in new samples"].append(apart(truth, other, noun, noun))
        found["cycle: PSNR"].append(psnr(held, back))
        tick()
    return {f"exchange: {name}": mean(values) for name, values in found.items()}


def measure_domains(translator: Translator, *, count: int, seed: int, progress: Any = None) -> dict[str, float]:
    """Between two domains: photo and sketch, day and night, each way in turn, from images without a caption."""
    rng = random.Random(f"domains {seed}")
    found: dict[str, list[float | bool]] = {}
    for number in range(count):
        scene = one_thing(rng, domains=True)
        after = _other(scene, rng, number)
        picture = drawn(scene)
        _, held, made = translator.exchange(picture, labels_of(scene), labels_of(after)).pictures[0]
        back = translator.exchange(made, labels_of(after), labels_of(scene)).pictures[0, 2]
        source, sight = oracle().look(np.stack([picture, made]))
        (thing,) = scene.things
        kind = "photo and sketch" if scene.style != after.style else "day and night"
        night = sight.background == "night"
        values = {
            "changed": sight.style == after.style and night == (after.background == "night"),
            "the thing stays": sight.has(thing.noun),
            "moved": apart(source, sight, thing.noun, thing.noun),
            "cycle: PSNR": psnr(held, back),
        }
        for name, value in values.items():
            found.setdefault(f"{kind}: {name}", []).append(value)
        if progress:
            progress()
    return {name: mean(values) for name, values in found.items()}


def _other(scene: Scene, rng: random.Random, number: int) -> Scene:
    if number % 2:
        return scene.with_(style=next(style for style in DOMAINS[0] if style != scene.style))
    return scene.with_(background=rng.choice(DAYS) if scene.background == "night" else "night")

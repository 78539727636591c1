"""Edits of input images drawn by the world: does the edit succeed, and does the rest stay?

Two measures of `bench methods`: `given`, a swap of one thing by Prompt-to-Prompt, with the source pinned to its
trajectory and without, and `pnp`, another style by Plug-and-Play. The drawn target scene is the truth for both.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from promptweave.benchmarks.bench_methods import Measured, means
from promptweave.benchmarks.judging import oracle
from promptweave.editing.edit import run_many
from promptweave.editing.picture import Picture
from promptweave.editing.recipe import Recipe
from promptweave.evaluate.metrics import layout, psnr
from promptweave.methods import PlugAndPlay, Refine, Replace
from promptweave.models.base import Model
from promptweave.words import suggest
from promptweave.world.caption import caption
from promptweave.world.render import render
from promptweave.world.scene import ANIMALS, FOODS, RIDES, STYLES, Scene, random_scene

BATCH = 8  # images per batch
ROW_FIGURES = ("PSNR of the source's row to the picture, dB",)
SWAP_FIGURES = ("the new thing is there, the old one gone", "PSNR outside both things, dB")
STYLE_FIGURES = ("the style is the new one", "correlation of the edges with the picture's")


def swap(rng: random.Random) -> tuple[Scene, Scene, str, str]:
    """A scene, the same scene with another animal, ride or food, and both nouns."""
    scene = replace(random_scene(rng, relation=rng.choice(("alone", "riding", "eating"))), style="photo")
    index = rng.randrange(len(scene.things))
    old = scene.things[index].noun
    group = next((g for g in (ANIMALS, RIDES, FOODS) if old in g), ANIMALS)
    new = rng.choice([noun for noun in group if noun not in {thing.noun for thing in scene.things}])
    scene = scene.with_(index, colour=None)
    return scene, scene.with_(index, noun=new), old, new


def recipe(
    model: Model, scene: Scene, targets: tuple[str, ...], steps: int, guidance: int | float, **options: Any
) -> Recipe:
    """An edit of a scene's drawn image."""
    picture = Picture.of(render(scene)[0], model.default_size)
    return Recipe(caption(scene), targets, steps=steps, guidance=guidance, model=model.name, picture=picture, **options)


def measure_given(
    model: Model, *, count: int, steps: int, guidance: int | float, seed: int, progress: Callable[[], Any] | None = None
) -> list[Measured]:
    """Swaps: [no control, Prompt-to-Prompt with the source pinned, Prompt-to-Prompt on plain inversion]."""
    rng = random.Random(f"given {seed}")
    rows, edits = list[np.ndarray](), list[np.ndarray]()
    for first in range(0, count, BATCH):
        drawn = [swap(rng) for _ in range(min(BATCH, count - first))]
        recipes: list[Recipe] = []
        for scene, other, _, _ in drawn:
            target = caption(other)
            recipes.append(recipe(model, scene, (target, target), steps, guidance, controls=(Replace(targets=(2,)),)))
            plain = recipe(model, scene, (target,), steps, guidance, controls=(Replace(),), inversion="ddim")
            recipes.append(plain)
        made = [result.sample.pictures[:, 0] for result in run_many(recipes, model)]
        for place, (scene, other, old, new) in enumerate(drawn):
            pinned, plain = made[2 * place], made[2 * place + 1]
            picture, regions = render(scene)[0], [render(s)[1] for s in (scene, other)]
            outside = np.asarray(~np.concatenate(regions).any(0))
            rows.append(np.array([[psnr(picture, x)] for x in (plain[0], pinned[0], plain[0])]))
            compared = np.stack([pinned[1], pinned[2], plain[1]])
            sights = oracle().look(compared)
            edits.append(
                np.array(
                    [
                        (sight.has(new) and not sight.has(old), psnr(pinned[0], x, outside))
                        for sight, x in zip(sights, compared, strict=True)
                    ]
                )
            )
            for _ in range(2):
                if progress:
                    progress()
    sources = [replace(figure, beside=None) for figure in means("Given pictures, pinned", ROW_FIGURES, rows)]
    swaps = means("Given pictures, a swap", SWAP_FIGURES, edits)
    unpinned = [replace(f, method="the same, not pinned", steered=f.beside or 0.0, beside=None) for f in swaps]
    return [*sources, *(replace(figure, beside=None) for figure in swaps), *unpinned]


def measure_plug_and_play(
    model: Model, *, count: int, steps: int, guidance: int | float, seed: int, progress: Callable[[], Any] | None = None
) -> list[Measured]:
    """Other styles from the same inversion: no control, Plug-and-Play, Prompt-to-Prompt."""
    rng, found = random.Random(f"pnp {seed}"), list[np.ndarray]()
    for first in range(0, count, BATCH):
        scenes = [replace(random_scene(rng), style="photo") for _ in range(min(BATCH, count - first))]
        styles = [rng.choice(STYLES[1:]) for _ in scenes]
        recipes: list[Recipe] = []
        for scene, style in zip(scenes, styles, strict=True):
            target = caption(replace(scene, style=style))
            kind = suggest(model.words(caption(scene)), model.words(target))
            injection = Refine if kind == "refine" else Replace
            controls = (PlugAndPlay(targets=(2,)), injection(targets=(3,)))
            recipes.append(recipe(model, scene, (target,) * 3, steps, guidance, controls=controls))
        for style, result in zip(styles, run_many(recipes, model), strict=True):
            first, pictures = result.sample.pictures[0, 0], result.sample.pictures[1:, 0]
            sights = oracle().look(pictures)
            rows = [(sight.style == style, layout(first, x)) for sight, x in zip(sights, pictures, strict=True)]
            found.append(np.array(rows))
            for _ in range(2):
                if progress:
                    progress()
    return means("Plug-and-Play", STYLE_FIGURES, found)

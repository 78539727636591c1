"""What the translators of the world are trained on: images of one thing as latents, with their captions and labels."""

from __future__ import annotations

import os
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.files import write_file
from promptweave.translation.experts import DOMAINS, LabelExpert, PromptExpert
from promptweave.world.caption import caption
from promptweave.world.render import render
from promptweave.world.scene import BACKGROUNDS, Scene, random_scene

DAYS = tuple(name for name in BACKGROUNDS if name != "night")
CAPTIONS = 3  # of each scene: one says everything, the others leave things out, as people do
CHUNK, BATCH = 64, 256
FILE = "pairs.safetensors"


@dataclass(frozen=True, eq=False)
class Pairs:
    """Scenes as the experts see them; half of them, the first, are drawn for the domains.

    `latents` in half precision; `prompts`: codes of `CAPTIONS` captions; `labels`: codes of the domains, zero if a
    scene has a style without a label.
    """

    latents: Float[Tensor, "scenes channels height width"]
    prompts: Float[Tensor, "scenes captions code"]
    labels: Float[Tensor, "scenes labels"]

    def save(self, path: Path, about: dict[str, str]) -> None:
        """Write the arrays. Raises CannotWrite."""
        from safetensors.torch import save_file

        arrays = {field.name: getattr(self, field.name).contiguous() for field in fields(self)}
        write_file(path, lambda fresh: save_file(arrays, fresh, about))

    @classmethod
    def load(cls, path: Path) -> tuple[Pairs, dict[str, str]]:
        """What `save` wrote."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return cls(**{key: file.get_tensor(key) for key in file.keys()}), dict(file.metadata())  # noqa: SIM118


def labels_of(scene: Scene) -> str:
    """The scene's labels in the domains.

    >>> from promptweave.world.scene import Thing
    >>> labels_of(Scene("snow", "photo", "alone", (Thing("cat", 0.5, 0.9, 0.6),)))
    'photo, day'
    """
    return f"{scene.style}, {'night' if scene.background == 'night' else 'day'}"


def one_thing(rng: random.Random, *, domains: bool = False, seen_only: bool = True) -> Scene:
    """A random scene with one thing; with `domains` a photo or a sketch, by day or by night, each as often."""
    scene = random_scene(rng, relation="alone", seen_only=seen_only)
    if not domains:
        return scene
    background = "night" if rng.random() < 0.5 else rng.choice(DAYS)
    return scene.with_(style=rng.choice(DOMAINS[0]), background=background)


def _drawn(seed: int, count: int, first: int) -> tuple[list[Scene], np.ndarray]:
    """Scenes from the number `first` of `count`, and their images, uint8."""
    scenes = [
        one_thing(random.Random(f"{seed} {number}"), domains=number < count // 2)
        for number in range(first, min(first + CHUNK, count))
    ]
    return scenes, np.stack([render(scene)[0] for scene in scenes])


def make_pairs(model: Any, count: int, seed: int, watch: Any = None) -> Pairs:
    """Draw scenes, and encode them by the model's autoencoder and text encoder; scenes are drawn on all cores."""
    prompts, labels = PromptExpert(model), LabelExpert(DOMAINS)
    scenes: list[Scene] = []
    latents: list[Tensor] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for drawn, pictures in pool.map(partial(_drawn, seed, count), range(0, count, CHUNK)):
            scenes += drawn
            latents.append(model.to_latent(torch.from_numpy(pictures).float() / 255).half().cpu())
            if watch:
                watch(len(scenes))
    rng = random.Random(seed)
    told = [caption(scene, rng if turn else None) for scene in scenes for turn in range(CAPTIONS)]
    places = {text: place for place, text in enumerate(dict.fromkeys(told))}
    different = list(places)
    parts = [prompts.encode(different[i : i + BATCH]) for i in range(0, len(different), BATCH)]
    codes = torch.cat(parts).half()[[places[text] for text in told]]
    known = torch.stack(
        [
            labels.encode([labels_of(scene)])[0] if scene.style in DOMAINS[0] else torch.zeros(labels.dim)
            for scene in scenes
        ]
    )
    return Pairs(torch.cat(latents), codes.unflatten(0, (len(scenes), CAPTIONS)), known.half())

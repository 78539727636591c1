"""Train the oracle on rendered scenes, some blurred or noisy, and test it on unseen scenes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from promptweave.world.oracle import Oracle
from promptweave.world.render import render
from promptweave.world.scene import BACKGROUNDS, COLOURS, NOUNS, STYLES, Scene, random_scene
from promptweave.world.training import Clock, Log, Watch, ahead

NAMES = {"nouns": list(NOUNS), "colours": list(COLOURS), "backgrounds": list(BACKGROUNDS), "styles": list(STYLES)}
BATCH = 64
GRID = 32
SKETCHES = 0.3  # fraction of the scenes redrawn as sketches, the only style that was hard to recognise


def example(scene: Scene) -> dict[str, np.ndarray]:
    """The image of a scene and the oracle's targets for it."""
    picture, masks = render(scene)
    factor = picture.shape[0] // GRID
    region, colour = np.zeros((2, GRID, GRID), dtype=np.int64)
    for thing, mask in zip(scene.things, masks, strict=True):
        covered = mask.reshape(GRID, factor, GRID, factor).mean((1, 3)) > 0.5
        region[covered] = NOUNS.index(thing.noun) + 1
        colour[covered] = COLOURS.index(thing.colour) + 1 if thing.colour else 0
    things = np.zeros(len(NOUNS), dtype=np.float32)
    things[[NOUNS.index(thing.noun) for thing in scene.things]] = 1
    whole = np.array([BACKGROUNDS.index(scene.background), STYLES.index(scene.style)])
    return {"picture": picture, "region": region, "colour": colour, "things": things, "whole": whole}


def examples(seed: int, count: int = BATCH) -> dict[str, np.ndarray]:
    """A batch of random scenes as arrays."""
    rng = random.Random(seed)
    scenes = [random_scene(rng, seen_only=False) for _ in range(count)]
    drawn = [example(scene.with_(style="sketch") if rng.random() < SKETCHES else scene) for scene in scenes]
    return {key: np.stack([one[key] for one in drawn]) for key in drawn[0]}


def degraded(x: Tensor, generator: torch.Generator) -> Tensor:
    """Blur half of the images or add noise, so that the oracle can judge imperfect images."""
    soft = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    softer = F.interpolate(F.avg_pool2d(x, 4), scale_factor=4, mode="bilinear")
    kind = torch.randint(0, 4, (len(x), 1, 1, 1), generator=generator)
    x = torch.where(kind == 1, soft, torch.where(kind == 2, softer, x))
    return (
        x + 0.06 * torch.rand(len(x), 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
    ).clamp(-1, 1)


def losses(out: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
    """The sum of the cross-entropies of regions, colours (where there is a thing), things, background and style."""
    colour = torch.where(batch["region"] > 0, batch["colour"], -100)
    return (
        F.cross_entropy(out["region"], batch["region"])
        + F.cross_entropy(out["colour"], colour)
        + 10 * F.binary_cross_entropy_with_logits(out["things"], batch["things"])
        + F.cross_entropy(out["background"], batch["whole"][:, 0])
        + F.cross_entropy(out["style"], batch["whole"][:, 1])
    )


def train_oracle(path: Path, *, steps: int = 1400, seed: int = 0, watch: Watch | None = None) -> Oracle:
    """Train from scratch (35 minutes on one busy core) and save to `path`."""
    torch.manual_seed(seed)
    generator, oracle, clock = torch.Generator().manual_seed(seed), Oracle.create(NAMES), Clock(0)
    log = Log(path.parent, watch)
    network: Any = oracle.network.train()
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step, arrays in enumerate(ahead(examples, range(seed + 1, seed + 1 + steps))):
        batch = {key: torch.from_numpy(value) for key, value in arrays.items()}
        x = batch["picture"].permute(0, 3, 1, 2).float() / 127.5 - 1
        loss = losses(network(degraded(x, generator).contiguous(memory_format=torch.channels_last)), batch)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        log(
            stage="oracle",
            samples=(step + 1) * BATCH,
            minutes=clock.used,
            loss=loss.item(),
            share=(step + 1) / steps,
        )
    network.eval()
    log(stage="oracle", minutes=clock.used, share=1.0, **oracle_accuracy(oracle), force=True)
    oracle.save(path)
    return oracle


def oracle_accuracy(oracle: Oracle, count: int = 512, seed: int = 10**7) -> dict[str, float]:
    """The oracle's accuracy on unseen rendered scenes: exactly the right things, the background, and so on."""
    rng = random.Random(seed)
    scenes = [random_scene(rng, seen_only=False) for _ in range(count)]
    right = {"things": 0, "background": 0, "style": 0}
    coloured = [0, 0]
    for begin in range(0, count, BATCH):
        part = scenes[begin : begin + BATCH]
        for scene, sight in zip(part, oracle.look(np.stack([render(s)[0] for s in part])), strict=True):
            present = {noun for noun in NOUNS if sight.has(noun)}
            right["things"] += present == {thing.noun for thing in scene.things}
            right["background"] += sight.background == scene.background
            right["style"] += sight.style == scene.style
            for thing in scene.things:
                if thing.colour and scene.style != "sketch" and sum(t.noun == thing.noun for t in scene.things) == 1:
                    coloured[0] += sight.colours[thing.noun] == thing.colour
                    coloured[1] += 1
    return {**{key: value / count for key, value in right.items()}, "colour": coloured[0] / max(1, coloured[1])}

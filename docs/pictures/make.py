"""Make the pictures of the documentation (but for those of `promptweave bench edits --pictures docs/pictures`)."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

import promptweave as pw
from promptweave.view.sheet import sheet
from promptweave.world.caption import caption
from promptweave.world.render import render
from promptweave.world.scene import random_scene

FOLDER = Path(__file__).parent
FACTORS = (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)


def keep(image: Image.Image, name: str) -> None:
    image.save(FOLDER / f"{name}.webp", quality=88)
    print(f"wrote {FOLDER / name}.webp")


def weights(word: str, prompt: str) -> Image.Image:
    """One row of pictures: the word's attention times each factor."""
    others = [factor for factor in FACTORS if factor != 1]
    controls = [pw.Replace(), *(pw.Reweight({word: f}, targets=(row,)) for row, f in enumerate(others, 1))]
    made = pw.edit(prompt, *[prompt] * len(others), controls=controls).sample.pictures[:, 0]
    pictures = {1.0: made[0], **dict(zip(others, made[1:], strict=True))}
    return sheet([[pictures[f] for f in FACTORS]], [[f"{word} x {f:g}" for f in FACTORS]])


def main() -> None:
    keep(pw.edit("a photo of a cat riding a bike", "a photo of a cat riding a car", compare=True).comparison(), "demo")
    squirrel = "a painting of a squirrel eating a burger"
    targets = squirrel.replace("burger", "pizza"), squirrel.replace("painting", "watercolor painting")
    keep(pw.edit(squirrel, *targets).comparison(), "squirrel")
    hats = "a cat wearing a hat on the grass", "a lion wearing a hat on the grass"
    keep(pw.edit(*hats, blend="lion", compare=True).comparison(), "hat")
    keep(weights("snow", "a photo of a house in the snow"), "weights-snow")
    keep(weights("red", "a photo of a red car on the grass"), "weights-red")
    keep(pw.word_maps("a photo of a dog next to a house in the snow").strip(), "maps")
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    riding = "a photo of a cat riding a bike on the grass", "a photo of a cat riding a car on the grass"
    keep(pw.sweep(*riding, rows=("self_attention", shares), columns=("cross", shares), steps=25).sheet(), "sweep")
    rng = random.Random(5)
    scenes = [random_scene(rng) for _ in range(12)]
    pictures, captions = [render(scene)[0] for scene in scenes], [caption(scene) for scene in scenes]
    keep(sheet([pictures[:6], pictures[6:]], [captions[:6], captions[6:]]), "world")


if __name__ == "__main__":
    main()

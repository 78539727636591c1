"""Masks found by a word: how far they overlap with the drawn outline, from noised passes and along the inversion."""

import random
import sys
from pathlib import Path

import numpy as np

import promptweave as pw
from promptweave.editing.found_masks import find_mask
from promptweave.view.sheet import sheet
from promptweave.world.caption import caption
from promptweave.world.render import render
from promptweave.world.scene import random_scene

WAYS = ("noised", "inversion")


def white(mask: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(mask, np.uint8)[..., None] * 255, 3, -1)


def main(folder: Path = Path("out/examples/masks"), steps: int = 20, count: int = 1) -> None:
    rows, overlap = [], {way: [] for way in WAYS}
    for number in range(count):
        scene = random_scene(random.Random(f"mask {number}"))  # stands for your own photo
        (drawn, outlines), word = render(scene), scene.things[0].noun
        masks = [find_mask(drawn, caption(scene), "", pw.WordMask(word, maps=way), steps=steps) for way in WAYS]
        masks = [np.kron(mask, np.ones((8, 8))) > 0 for mask in masks]
        for way, mask in zip(WAYS, masks, strict=True):
            overlap[way].append((mask & outlines[0]).sum() / (mask | outlines[0]).sum())
        rows.append([drawn, *map(white, (outlines[0], *masks))])
    print(*(f"{way}: {np.mean(found):.2f} of {count}" for way, found in overlap.items()), sep="\n")
    folder.mkdir(parents=True, exist_ok=True)
    sheet(rows[:3], [["image", "outline", *WAYS]] * min(3, count)).save(folder / "masks.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]), count=int((sys.argv[2:] or ["1"])[0]))

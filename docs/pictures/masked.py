"""The picture of docs/methods/inpainting.md: the same change by a mask and by attention."""

from __future__ import annotations

import numpy as np
from PIL import Image

import promptweave as pw
from promptweave.view.sheet import sheet
from promptweave.world.caption import caption
from promptweave.world.counterfactuals import MARGIN, grown
from promptweave.world.render import render
from promptweave.world.scene import Scene, Thing

CASES = (  # scene, the thing that gets a colour, the colour
    (Scene("grass", "photo", "wearing", (Thing("cat", 0.5, 0.9, 0.62), Thing("hat", 0.45, 0.42, 0.3)), 3), 1, "red"),
    (Scene("snow", "photo", "alone", (Thing("bird", 0.5, 0.85, 0.5),), 5), 0, "red"),
)
SEEDS = (0, 1, 2)
STEPS = 25


def inpainting() -> Image.Image:
    """Given image, mask, inpainting from three seeds, Prompt-to-Prompt without and with local blend."""
    rows, labels = list[list[Image.Image | np.ndarray]](), list[list[str]]()
    for scene, index, colour in CASES:
        other = scene.with_(index, colour=colour)
        source, target = caption(scene), caption(other)
        drawn, outlines = render(scene)
        mask = grown(np.asarray(outlines[index]), MARGIN)
        anew = [pw.inpaint(drawn, target, mask=mask, steps=STEPS, seed=seed).edited for seed in SEEDS]
        made = [
            pw.edit(source, target, image=drawn, steps=STEPS, **options).edited
            for options in ({}, {"blend": scene.things[index].noun})
        ]
        covered = np.where(mask[..., None], 255, drawn).astype(np.uint8)
        rows.append([drawn, covered, *anew, *made])
        names = [*(f"inpainting, seed {seed}" for seed in SEEDS), "Prompt-to-Prompt", "with local blend"]
        labels.append([source, f"mask, for: {target}", *names])
    return sheet(rows, labels)

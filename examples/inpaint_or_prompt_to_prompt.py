"""The same change by a mask and by attention: inpainting, and Prompt-to-Prompt with and without local blend."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import promptweave as pw
from promptweave.view.sheet import sheet
from promptweave.world.render import render
from promptweave.world.scene import Scene, Thing


def main(folder: Path = Path("out/examples/inpaint"), steps: int = 50) -> None:
    cat, hat = Thing("cat", 0.5, 0.9, 0.62), Thing("hat", 0.45, 0.42, 0.3)
    drawn, outlines = render(Scene("grass", "photo", "wearing", (cat, hat), 3))  # any picture of yours will do
    source, target = "a photo of a cat wearing a hat on the grass", "a photo of a cat wearing a red hat on the grass"
    mask = Image.fromarray(outlines[1]).convert("L").filter(ImageFilter.MaxFilter(9))  # as one would paint over the hat

    anew = pw.inpaint(drawn, target, mask=mask, steps=steps)  # latents are blended outside the mask
    found = pw.inpaint(drawn, target, source=source, mask=pw.WordMask("hat"), steps=steps)  # attention draws the mask
    edited = pw.edit(source, target, image=drawn, steps=steps)  # Prompt-to-Prompt: no mask
    local = pw.edit(source, target, image=drawn, blend="hat", steps=steps)
    for name, made in (("mask", anew), ("words", found), ("prompt-to-prompt", edited), ("local blend", local)):
        distance = made.report["distance"][0][0]
        print(f"{name}: {distance['changed_pixels']:.0%} of the pixels changed")

    covered = np.maximum(drawn, np.asarray(mask)[..., None])
    pictures = [drawn, covered, anew.edited, found.edited, edited.edited, local.edited]
    names = ["given", "mask", "inpainted", "mask of the word hat", "Prompt-to-Prompt", "with local blend"]
    folder.mkdir(parents=True, exist_ok=True)
    sheet([pictures], [names]).save(folder / "red hat.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

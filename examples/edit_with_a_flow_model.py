"""Your own photo on a flow model: three editors, from the freest to the one that keeps all outside a mask."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import promptweave as pw
from promptweave.evaluate.metrics import psnr


def main(folder: Path = Path("out/examples/flow_model"), steps: int = 20) -> None:
    model = pw.load("toybox-dit")
    source, target = "a photo of a cat on the grass", "a photo of a dog on the grass"
    photo = pw.generate(source, model=model, seed=3, steps=steps).source  # take a photo of yours instead
    mask = Image.new("L", photo.size)
    ImageDraw.Draw(mask).ellipse((20, 20, 108, 108), fill=255)
    editors = {
        "uniedit": {},  # along the difference of two velocities
        "directedit": {"inject": 0.5, "blend": "cat"},  # the source's values, changed where the cat is
        "kvedit": {"mask": mask},  # outside the mask the latents stay as they are, bit by bit
    }
    for kind, options in editors.items():
        result = pw.edit(source, target, model=model, image=photo, kind=kind, steps=steps, **options)
        outside = psnr(np.asarray(result.source), np.asarray(result.edited), np.asarray(mask) == 0)
        print(f"{kind}, inverted by {result.recipe.inversion}: {outside:.1f} dB outside the mask")
        result.save(folder / kind, force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

"""Edit a picture that the model did not make: Prompt-to-Prompt, Plug-and-Play and MasaCtrl on the same inversion."""

import sys
from pathlib import Path

from PIL import Image

import promptweave as pw
from promptweave.world.render import render
from promptweave.world.scene import Scene, Thing


def main(folder: Path = Path("out/examples/given"), steps: int = 50) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cat = Scene("grass", "photo", "alone", (Thing("cat", 0.5, 0.9, 0.6),), 5)
    Image.fromarray(render(cat)[0]).save(folder / "cat.png")  # any picture of yours will do
    source = "a photo of a cat on the grass"
    edits = {
        "swap": ("a photo of a dog on the grass", None),
        "look": ("a sketch of a cat on the grass", [pw.PlugAndPlay()]),
        "pose": ("a photo of a cat riding a bike on the grass", [pw.MasaCtrl()]),
    }
    for name, (target, controls) in edits.items():
        made = pw.edit(source, target, image=folder / "cat.png", controls=controls, steps=steps, compare=True)
        print(f"{name}: the source is {made.report['picture']['psnr']:.1f} dB from the picture")
        made.save(folder / name, force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

"""Edit a large photo without a source prompt, and put the edit back into it: all other pixels stay as they are."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import promptweave as pw
from promptweave.world.render import render
from promptweave.world.scene import Scene, Thing


def main(folder: Path = Path("out/examples/kept"), steps: int = 50) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cat = Scene("grass", "photo", "alone", (Thing("cat", 0.5, 0.9, 0.6),), 5)
    drawn = Image.fromarray(render(cat)[0]).resize((600, 600), Image.Resampling.LANCZOS)
    grain = np.random.default_rng(0).normal(0, 8, (600, 900, 1))
    wide = np.pad(np.asarray(drawn), ((0, 0), (150, 150), (0, 0)), mode="edge") + grain
    photo = Image.fromarray(wide.clip(0, 255).astype(np.uint8))  # any photo of yours will do
    photo.save(folder / "photo.png")
    source = pw.caption(folder / "photo.png")  # or what you type
    made = pw.edit(
        source, source.replace("cat", "dog"), image=folder / "photo.png", keep_original=True, steps=steps
    )  # fmt: skip
    same = (np.asarray(made.edited) == np.asarray(photo)).all(-1).mean()
    print(f"{source!r}: {made.edited.width} x {made.edited.height} pixels, {same:.0%} of them the photo's own")
    made.save(folder / "edit", force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

"""Your own photo: inversions compared, then one of them found once for several edits."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/invert_once"), steps: int = 20) -> None:
    source = "a photo of a cat on the grass"
    photo = pw.generate(source, seed=3, steps=steps).source  # take a photo of yours instead
    for inversion in ("direct", "ddim", "negative-prompt", "edit-friendly"):
        found = pw.invert(source, photo, inversion=inversion, steps=steps)
        print(f"{inversion}: the source's row is {found.psnr:.1f} dB from the photo")
    found = pw.InvertedImage.load(found.save(folder / "photo.safetensors"))
    for target in ("a photo of a dog on the grass", "a photo of a cat on the beach"):
        pw.edit(found, target, cross=1.0, self_attention=0.5).save(folder / target, force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

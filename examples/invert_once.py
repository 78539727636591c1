"""Your own photo: inverted once, edited several times, and the inversions compared."""

from pathlib import Path

import promptweave as pw

steps = 8
source = "a photo of a cat on the grass"
photo = pw.generate(source, seed=3, steps=steps).source  # take a photo of yours instead

for inversion in ("direct", "ddim", "negative-prompt", "edit-friendly"):
    found = pw.invert(source, photo, inversion=inversion, steps=steps)
    print(f"{inversion}: the source's row is {found.psnr:.1f} dB from the photo")

found = pw.invert(source, photo, inversion="edit-friendly", steps=steps)
found.save(Path("out/photo.safetensors"))
found = pw.InvertedImage.load("out/photo.safetensors")
for target in ("a photo of a dog on the grass", "a photo of a cat on the beach"):
    pw.edit(found, target).save(f"out/{target.split()[4]} on the {target.split()[-1]}", force=True)

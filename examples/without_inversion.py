"""Edit your own photo without inverting it: InfEdit on a few-step model, and the Delta Denoising Score."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/without_inversion"), steps: int = 8) -> None:
    source, target = "a photo of a cat on the grass", "a photo of a dog on the grass"
    model = pw.load("toybox-fast")
    photo = pw.generate(source, model=model, seed=3, steps=steps).source  # take a photo of yours instead
    for inversion in ("infedit", "turbo-edit"):
        made = pw.edit(source, target, model=model, image=photo, inversion=inversion, steps=steps)
        print(f"{inversion}: the source's row is {made.report['picture']['psnr']:.1f} dB from the photo")
        made.save(folder / inversion, force=True)
    made = pw.edit(source, target, image=photo, controls=[pw.DeltaDenoising(rounds=2)], steps=steps)
    made.save(folder / "dds", force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

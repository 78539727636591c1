"""Say where things go: the cat to the right, the car to the left, whichever way round the noise would have them."""

import sys
from pathlib import Path

import promptweave as pw
from promptweave.view.boxes import boxed
from promptweave.view.sheet import sheet


def main(folder: Path = Path("out/examples/place"), steps: int = 50) -> None:
    prompt = "a photo of a cat next to a red car in the snow"
    regions = {"cat": (0.5, 0.2, 1.0, 1.0), "red car": (0.0, 0.4, 0.5, 1.0)}  # left, top, right, bottom
    # Regions act on the conditional half of guidance: more of it than is usual here lets things change sides.
    made = pw.generate(
        prompt, controls=[pw.DirectedDiffusion(regions)], steps=steps, compare=True, guidance=7.5, seed=1
    )
    print(made.report["controls"][0])
    made.save(folder, force=True)
    pictures = [boxed(picture, regions) for picture in (made.plain[0, 0], made.sample.pictures[0, 0])]
    sheet([pictures], [["without", "with"]]).save(folder / "boxes.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

"""Let the strengths of an edit be searched, for the work of at most four edits, and walk along the front."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/strengths"), steps: int = 20) -> None:
    source, target = "a photo of a dog on the grass", "a photo of a dog wearing a hat on the grass"
    found = pw.find(source, target, steps=steps, seed=4)
    print(found.why)
    print(f"The search cost as much as {found.cost:.1f} edits.")
    for point in found.front:  # from what keeps the most to what changes the most
        print(f"  made {point.verdict.score:.2f}, kept {point.verdict.kept:.1f} dB: {point.said}")
    found.save(folder, force=True)
    found.at(1.0).picture.save(folder / "the-most-changed.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

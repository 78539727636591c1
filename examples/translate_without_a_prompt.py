"""A cat becomes a dog by an edit direction, at three strengths (pix2pix-zero)."""

import sys
from pathlib import Path

import promptweave as pw
from promptweave.view.sheet import sheet


def main(folder: Path = Path("out/examples/translate"), steps: int = 50) -> None:
    prompt, strengths = "a photo of a cat on the grass", (1.0, 2.0, 3.0)
    results = [
        pw.edit(prompt, prompt, controls=[pw.Pix2PixZero("cat", "dog", strength)], steps=steps)
        for strength in strengths
    ]
    folder.mkdir(parents=True, exist_ok=True)
    row = [results[0].source, *(result.edited for result in results)]
    sheet([row], [["cat", *(f"to dog, strength {s:g}" for s in strengths)]]).save(folder / "strengths.png")
    print(f"wrote {folder / 'strengths.png'}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

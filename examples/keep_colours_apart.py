"""Two things of two colours: each phrase is read by itself, so that the second colour knows nothing of the first."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/colours"), steps: int = 50) -> None:
    prompt = "a photo of a red car next to a blue bike on the grass"
    phrases = ("a red car", "a blue bike")  # None: those that spaCy finds, with pip install 'promptweave[nlp]'
    for variant in ("values", "keys"):
        made = pw.generate(prompt, controls=[pw.StructuredDiffusion(phrases, variant)], steps=steps, compare=True)
        print(variant, made.report["controls"][0]["phrases"])
        made.save(folder / variant, force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

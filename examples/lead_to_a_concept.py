"""Add something to a picture beside its prompt: semantic guidance, everywhere and where its words look."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/sega"), steps: int = 50) -> None:
    prompt, concept = "a photo of a cat on the grass", "a photo of a cat wearing a hat on the grass"
    for name, attention in (("everywhere", False), ("where-it-looks", True)):
        control = pw.SemanticGuidance({concept: 5}, warmup=0.1, threshold=0.8, attention=attention)
        made = pw.edit(prompt, prompt, controls=[control], seed=3, steps=steps)
        print(f"{name}: {made.report['controls'][0]['area']:.1%} of the latent moved")
        made.save(folder / name, force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

"""Change one thing and nothing else: a cat with a hat becomes a lion, and only where the animal is (local blend)."""

import sys
from pathlib import Path

import numpy as np

import promptweave as pw


def main(folder: Path = Path("out/examples/blend"), steps: int = 50) -> None:
    prompts = "a cat wearing a hat on the grass", "a lion wearing a hat on the grass"
    for name, blend in (("everywhere", ()), ("animal-only", "lion")):
        result = pw.edit(*prompts, blend=blend, steps=steps)
        source, edited = np.asarray(result.source).astype(int), np.asarray(result.edited)
        print(f"{name}: {(np.abs(source - edited).mean(-1) > 8).mean():.0%} of the pixels changed")
        result.save(folder / name, force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

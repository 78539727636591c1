"""Swap a word: a cat riding a bike rides a car instead. Prompt-to-Prompt, "Word Swap"."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/swap"), steps: int = 50) -> None:
    result = pw.edit(
        "a photo of a cat riding a bike",
        "a photo of a cat riding a car",
        steps=steps,
        compare=True,  # also make the target without control, to see what the edit holds in place
    )
    for pair in result.report["alignment"][0]:
        print(f"{pair['kind']:8} {pair['source']} -> {pair['target']}")
    print(*result.save(folder, force=True), sep="\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

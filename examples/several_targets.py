"""Several edits of one source in one run: another food, another medium. Each target gets the edit that fits it."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/targets"), steps: int = 50) -> None:
    result = pw.edit(
        "a painting of a squirrel eating a burger",
        "a painting of a squirrel eating a pizza",  # as many words: Replace
        "a watercolor painting of a squirrel eating a burger",  # a word more: Refine
        steps=steps,
    )
    for control in result.recipe.controls:
        print(type(control).__name__, "for targets", control.targets)
    print(*result.save(folder, force=True), sep="\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

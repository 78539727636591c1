"""Draw what each word of a prompt looks at, and measure one map."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/maps"), steps: int = 50) -> None:
    maps = pw.word_maps("a photo of a dog next to a house in the snow", steps=steps)
    for word in ("dog", "house", "snow"):
        heat = maps.of(word)
        columns = heat.sum(0) / heat.sum()
        centre = float((columns * (0.5 + columns.new_tensor(range(len(columns))))).sum()) / len(columns)
        print(f"{word}: centre of its attention at {centre:.0%} of the width")
    folder.mkdir(parents=True, exist_ok=True)
    maps.strip().save(folder / "maps.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

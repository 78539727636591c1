"""Re-weight a word from -2 to 4: snow, and the colour of a car. Targets of one run, each with a control of its own."""

import sys
from pathlib import Path

import promptweave as pw

FACTORS = (-2.0, 0.0, 2.0, 4.0)


def main(folder: Path = Path("out/examples/weights"), steps: int = 50) -> None:
    for word, prompt in (("snow", "a photo of a house in the snow"), ("red", "a photo of a red car on the grass")):
        result = pw.edit(
            prompt,
            *[prompt] * len(FACTORS),
            controls=[
                pw.Replace(cross=0.8, self_attention=0.4),
                *(pw.Reweight({word: factor}, targets=(row,)) for row, factor in enumerate(FACTORS, 1)),
            ],
            steps=steps,
        )
        for factor, distance in zip(FACTORS, result.report["distance"], strict=True):
            print(f"{word} x {factor:g}: {distance[0]['changed_pixels']:.0%} of the pixels changed")
        result.save(folder / word, force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

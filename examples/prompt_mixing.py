"""Variations of one object's shape, the rest of the image kept: prompt mixing."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/prompt-mixing"), steps: int = 50) -> None:
    prompt, proxies = "a photo of a cat next to a red car in the snow", ("house", "bike")
    mixing = pw.PromptMixing("car", proxies, window=(0.05, 0.5), preserve="cat")
    made = pw.edit(prompt, *[prompt] * len(proxies), controls=[mixing], seed=1, steps=steps)
    for proxy, areas in zip(proxies, made.report["controls"][0]["mask_area"].values(), strict=True):
        print(f"a car with something of a {proxy}: {areas[-1]:.0%} of the image may differ")
    made.save(folder, force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

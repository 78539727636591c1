"""See what is where in an image: segments and what a phrase means, from the features of a diffusion model."""

from pathlib import Path

import promptweave as pw
from promptweave.perception.scenes import drawn
from promptweave.world.render import render


def main(folder: Path = Path("out/perceive"), steps: int = 1) -> None:
    """Every answer takes one pass of the network, and one more for the mirror image; there are no sampling steps."""
    picture, _ = render(drawn(seed=7, index=18))  # a tiger on a red car; for your own image, give its path
    answers = {
        "segment": pw.perceive(picture, "segment"),
        "refer": pw.perceive(picture, "refer", phrase="the red car"),
        "words": pw.perceive(picture, "segment", words=["tiger", "car"]),  # no trained head: straight from the maps
    }
    for name, answer in answers.items():
        print(name, answer.facts)
        answer.save(folder / name, force=True)
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()

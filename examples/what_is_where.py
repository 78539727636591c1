"""Find where words are in an image that exists, and keep one of them in an edit by its mask."""

import random
import sys
from pathlib import Path

from PIL import Image

import promptweave as pw
from promptweave.world.caption import caption
from promptweave.world.render import render
from promptweave.world.scene import random_scene


def main(folder: Path = Path("out/examples/where"), steps: int = 50) -> None:
    scene = random_scene(random.Random(3), relation="riding")  # stands for your own photo
    photo, prompt = Image.fromarray(render(scene)[0]), caption(scene)
    ride, rider = (thing.noun for thing in scene.things)
    found = pw.segment(photo, (rider, ride), prompt=prompt)
    for word, fraction in found.fractions().items():
        print(f"{word}: {fraction:.0%} of the image")
    found.save(folder / "segments", force=True)
    new = prompt.replace(rider, "dog" if rider != "dog" else "cat")
    edited = pw.edit(prompt, new, image=photo, mask=folder / "segments" / f"mask-{rider}.png", steps=steps)
    edited.comparison().save(folder / "comparison.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

"""Make the pictures of the documentation (but for those of `promptweave bench edits --pictures docs/pictures`)."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

import promptweave as pw
from promptweave.apps.steering import maps_of_both, steer
from promptweave.apps.terminal import Terminal
from promptweave.view.sheet import sheet
from promptweave.world.caption import caption
from promptweave.world.render import render
from promptweave.world.scene import random_scene

FOLDER = Path(__file__).parent
TRANSLATIONS = ((1, 0), (2, 0), (2, 0.1), (2, 1))  # strength, guidance
FACTORS = (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)


def keep(image: Image.Image, name: str) -> None:
    image.save(FOLDER / f"{name}.webp", quality=88)
    print(f"wrote {FOLDER / name}.webp")


def weights(word: str, prompt: str) -> Image.Image:
    """One row of pictures: the word's attention times each factor."""
    others = [factor for factor in FACTORS if factor != 1]
    controls = [pw.Replace(), *(pw.Reweight({word: f}, targets=(row,)) for row, f in enumerate(others, 1))]
    made = pw.edit(prompt, *[prompt] * len(others), controls=controls).sample.pictures[:, 0]
    pictures = {1.0: made[0], **dict(zip(others, made[1:], strict=True))}
    return sheet([[pictures[f] for f in FACTORS]], [[f"{word} x {f:g}" for f in FACTORS]])


def views(prompt: str, hats: tuple[str, str]) -> None:
    """The pictures of docs/views.md; that of the page needs Chromium."""
    words = ("<start>", "photo", "dog", "next", "house", "snow")
    steps = pw.look(prompt, steps_shown=(0, 5, 10, 25, 50)).by_step
    assert steps is not None
    keep(steps.sheet(words=words), "views-steps")
    made = pw.edit(hats[0], hats[1].replace("a hat", "a red hat"), blend="lion", compare=True, maps=True)
    keep(pw.edit_maps(made).sheet(words=("cat", "wearing", "red", "hat", "grass")), "views-edit")
    browser = shutil.which("chromium")
    if browser is None:
        print("views-report.webp is a screenshot: install chromium to make it")
        return
    with tempfile.TemporaryDirectory() as folder:
        page, shot = pw.write_report(made, Path(folder) / "report.html"), Path(folder) / "report.png"
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1250")
        command = [browser, *options, f"--user-data-dir={folder}/profile", f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        with Image.open(shot) as image:
            keep(image.convert("RGB"), "views-report")


def attended(prompt: str, words: tuple[str, ...], seed: int) -> Image.Image:
    """Maps of the subjects, without and with Attend-and-Excite."""
    network, control = pw.load("toybox"), pw.AttendAndExcite(words, sharpness=20)
    with tempfile.TemporaryDirectory() as folder:
        _, after, before = steer(
            Terminal(quiet=True), prompt, [control], network, output=Path(folder), force=True, seed=seed
        )  # fmt: skip
    return maps_of_both(before, after, words)


def translated(prompt: str, source: str, target: str, seed: int) -> list[Image.Image]:
    """The source, and it with edit directions of strength 1 and 2, without and with its maps kept."""
    made = [
        pw.edit(prompt, prompt, controls=[pw.Pix2PixZero(source, target, strength, guidance)], seed=seed, steps=25)
        for strength, guidance in TRANSLATIONS
    ]
    return [made[0].source, *(result.edited for result in made)]


def main() -> None:
    keep(pw.edit("a photo of a cat riding a bike", "a photo of a cat riding a car", compare=True).comparison(), "demo")
    squirrel = "a painting of a squirrel eating a burger"
    targets = squirrel.replace("burger", "pizza"), squirrel.replace("painting", "watercolor painting")
    keep(pw.edit(squirrel, *targets).comparison(), "squirrel")
    hats = "a cat wearing a hat on the grass", "a lion wearing a hat on the grass"
    keep(pw.edit(*hats, blend="lion", compare=True).comparison(), "hat")
    keep(weights("snow", "a photo of a house in the snow"), "weights-snow")
    keep(weights("red", "a photo of a red car on the grass"), "weights-red")
    dog = "a photo of a dog next to a house in the snow"
    keep(pw.word_maps(dog).strip(), "maps")
    views(dog, hats)
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    riding = "a photo of a cat riding a bike on the grass", "a photo of a cat riding a car on the grass"
    keep(pw.sweep(*riding, rows=("self_attention", shares), columns=("cross", shares), steps=25).sheet(), "sweep")
    keep(attended("a photo of a cat and a car", ("cat", "car"), seed=2), "attend")
    cases = (
        ("a photo of a cat on the grass", "cat", "dog", 0),
        ("a photo of a red car in the snow", "red car", "blue car", 2),
    )
    names = [f"strength {strength}, guidance {guidance}" for strength, guidance in TRANSLATIONS]
    labels = [[prompt, *(f"{a} to {b}: {name}" for name in names)] for prompt, a, b, _ in cases]
    keep(sheet([translated(*case) for case in cases], labels), "translate")
    rng = random.Random(5)
    scenes = [random_scene(rng) for _ in range(12)]
    pictures, captions = [render(scene)[0] for scene in scenes], [caption(scene) for scene in scenes]
    keep(sheet([pictures[:6], pictures[6:]], [captions[:6], captions[6:]]), "world")


if __name__ == "__main__":
    main()

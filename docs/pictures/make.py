"""Make the pictures of the documentation, all or those named: `make pictures`, `make pictures ARGS="demo hat"`.

All of them are those that are not up to date: a run that was stopped goes on, and one that fails says so at the end. A
picture that shows what its file shows, but for compression, is not written again. Pictures that are named are made in
any case.
"""

from __future__ import annotations

import random
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from evaluated import evaluation
from figures import FIGURES
from kept import Progress, fingerprint, put
from masked import inpainting
from PIL import Image
from rooms import rooms

import promptweave as pw
from promptweave.apps.steering import maps_of_both, steer
from promptweave.apps.terminal import Terminal
from promptweave.benchmarks.measure_given import swap
from promptweave.models.load import load_cached
from promptweave.perception.scenes import drawn
from promptweave.sampling.loop import Job, sample_jobs
from promptweave.view.boxes import QUADRANTS, boxed
from promptweave.view.heat import over
from promptweave.view.sheet import grid_sheet, sheet
from promptweave.world.caption import article, caption
from promptweave.world.render import render
from promptweave.world.scene import Scene, Thing, random_scene, two_colours

FOLDER = Path(__file__).parent
TRANSLATIONS = ((1, 0), (2, 0), (2, 0.1), (2, 1))  # strength, guidance
HATS = "a cat wearing a hat on the grass", "a lion wearing a hat on the grass"
DOG = "a photo of a dog next to a house in the snow"
RIDING = "a photo of a cat riding a bike in the snow"
CHANGED = 4  # how often differences are enlarged
FACTORS = (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)


def weights(word: str, prompt: str) -> Image.Image:
    """One row of pictures: the word's attention times each factor."""
    others = [factor for factor in FACTORS if factor != 1]
    controls = [pw.Replace(), *(pw.Reweight({word: f}, targets=(row,)) for row, f in enumerate(others, 1))]
    made = pw.edit(prompt, *[prompt] * len(others), controls=controls).sample.pictures[:, 0]
    pictures = {1.0: made[0], **dict(zip(others, made[1:], strict=True))}
    return sheet([[pictures[f] for f in FACTORS]], [[f"{word} x {f:g}" for f in FACTORS]])


def views(prompt: str, hats: tuple[str, str]) -> dict[str, Image.Image]:
    """The pictures of docs/views.md; that of the page needs Chromium."""
    words = ("<start>", "photo", "dog", "next", "house", "snow")
    steps = pw.look(prompt, steps_shown=(0, 5, 10, 25, 50)).by_step
    assert steps is not None
    red = hats[1].replace("a hat", "a red hat")
    made = pw.edit(hats[0], red, blend=("lion", "hat"), compare=True, maps=True, steps=20)
    edited = pw.edit_maps(made).sheet(words=("cat", "wearing", "red", "hat", "grass"))
    pictures = {"views-steps": steps.sheet(words=words), "views-edit": edited}
    browser = shutil.which("chromium")
    if browser is None:
        print("views-report.webp is a screenshot: install chromium to make it")
        return pictures
    with tempfile.TemporaryDirectory() as folder:
        page, shot = pw.write_report(made, Path(folder) / "report.html"), Path(folder) / "report.png"
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1250")
        command = [browser, *options, f"--user-data-dir={folder}/profile", f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        with Image.open(shot) as image:
            return {**pictures, "views-report": image.convert("RGB")}


def attended(prompt: str, words: tuple[str, ...], seed: int) -> Image.Image:
    """Maps of the subjects, without and with Attend-and-Excite; prompt and seed are chosen."""
    network, control = load_cached("toybox-fast"), pw.AttendAndExcite(words, share=0.75, sharpness=20)
    _, after, before = steer(Terminal(quiet=True), prompt, [control], network, seed=seed)
    return maps_of_both(before, after, words)


def translated(prompt: str, source: str, target: str, seed: int) -> list[Image.Image]:
    """The source, and it with edit directions of strength 1 and 2, without and with its maps kept."""
    made = [
        pw.edit(prompt, prompt, controls=[pw.Pix2PixZero(source, target, strength, guidance)], seed=seed, steps=25)
        for strength, guidance in TRANSLATIONS
    ]
    return [made[0].source, *(result.edited for result in made)]


def places() -> Image.Image:
    """A thing sent to each quarter, and what looks at its word; thing, seed and settings are chosen."""
    prompt, names = "a photo of a squirrel on the grass", list(QUADRANTS)
    boxes = [{"squirrel": QUADRANTS[name]} for name in names]
    placed = [pw.DirectedDiffusion(box, share=0.6, strength=0.9, prompts=(row,)) for row, box in enumerate(boxes, 1)]
    made = pw.edit(
        prompt, *[prompt] * len(names), controls=[*placed, pw.RecordMaps()], seed=1, model=load_cached("toybox-fast")
    ).sample
    pictures, word = made.pictures[:, 0], list(made.run.words[0].find("squirrel"))
    maps = made.hooks[-1].maps
    seen = [over(maps.mean(row)[0][..., word].sum(-1), picture) for row, picture in enumerate(pictures)]
    framed = [[images[0], *map(boxed, images[1:], boxes)] for images in (pictures, seen)]
    heads = [prompt, *(f"squirrel: {name}" for name in names)]
    return sheet(framed, [heads, ["who looks at squirrel"] * len(heads)])


def colours() -> Image.Image:
    """Two things of two colours: the first scenes of `bench methods compose`, plain, with both variants, and what these
    change."""
    rng, model, made, heads = random.Random("compose 5000"), pw.load("toybox-fast"), list[np.ndarray](), list[str]()
    for number in range(6):
        scene = two_colours(rng).with_(style="photo")
        phrases = tuple(article(thing.words) for thing in scene.things)
        controls = [pw.StructuredDiffusion(phrases, name, (row,)) for row, name in ((1, "values"), (2, "keys"))]
        noise = pw.noise_for(model, 5000 + number)
        pictures = pw.sample(model, [caption(scene)] * 3, noise=noise, controls=controls).pictures[:, 0]
        changed = np.abs(pictures[1:].astype(int) - pictures[0]).max(-1, keepdims=True).repeat(3, -1)
        made.append(np.concatenate([pictures, (CHANGED * changed).clip(0, 255).astype(np.uint8)]))
        heads.append(" next to ".join(phrases))
    rows = ["plain", "values", "keys", *(f"{name}: changed, x {CHANGED}" for name in ("values", "keys"))]
    return grid_sheet([[pictures[row] for pictures in made] for row in range(len(rows))], rows, heads)


def mutual() -> Image.Image:
    """MasaCtrl and its variants."""
    cases = (
        ("a photo of a cat on the grass", "a photo of a cat riding a bike on the grass", "cat", 0),
        ("a photo of a red car in the snow", "a photo of a red car next to a house in the snow", "car", 1),
    )
    rows, labels = list[list[Image.Image]](), list[list[str]]()
    for source, target, word, seed in cases:
        controls = (pw.MasaCtrl(), pw.MasaCtrl(union=True), pw.MasaCtrl(words=(word,)))
        made = [pw.edit(source, target, controls=[c], seed=seed, steps=25, compare=True) for c in controls]
        assert made[0].plain is not None
        rows.append([made[0].source, Image.fromarray(made[0].plain[0, 0]), *(result.edited for result in made)])
        labels.append([source, f"no control: {target}", "MasaCtrl", "with the union", f"{word} apart from the rest"])
    return sheet(rows, labels)


def given() -> tuple[Image.Image, Image.Image]:
    """Pictures that the model did not make, edited by every method for them; and Plug-and-Play on one."""
    network, rows, labels = pw.load("toybox"), list[list[Image.Image]](), list[list[str]]()
    scenes = (
        (Scene("grass", "photo", "alone", (Thing("cat", 0.5, 0.9, 0.6),), 5), "cat", "dog", "cat riding a bike"),
        (
            Scene("snow", "photo", "riding", (Thing("car", 0.5, 0.93, 0.66, "red"), Thing("dog", 0.5, 0.57, 0.47)), 8),
            "red car", "bike", "car",
        ),
    )  # fmt: skip
    for scene, old, new, other in scenes:
        picture, source = Image.fromarray(render(scene)[0]), caption(scene)
        moved = source.replace(old, other) if scene.relation == "alone" else source.replace("riding", "next to")
        sketch = source.replace("photo", "sketch")
        runs: dict[str, tuple[str, dict[str, Any]]] = {
            "Prompt-to-Prompt": (source.replace(old, new), {}),
            "Plug-and-Play": (sketch, {"controls": [pw.PlugAndPlay()]}),
            "MasaCtrl": (moved, {"controls": [pw.MasaCtrl()]}),
        }
        made = {n: pw.edit(source, t, image=picture, model=network, steps=25, **o) for n, (t, o) in runs.items()}
        first = made["Prompt-to-Prompt"]
        rows.append([picture, first.source, *(result.edited for result in made.values())])
        labels.append([f"given: {source}", f"the source's row, {first.report['picture']['psnr']:.0f} dB",
                       *(f"{name}: {runs[name][0]}" for name in runs)])  # fmt: skip
    source = caption(scenes[1][0])
    looks = [source.replace("photo", style) for style in ("sketch", "watercolor", "painting")]
    made = pw.edit(source, *looks, image=rows[1][0], controls=[pw.PlugAndPlay()], compare=True, model=network, steps=25)
    assert made.plain is not None
    free = [Image.fromarray(row[0]) for row in made.plain]
    names = ["given: " + source, *looks], ["the source's row", *(f"no control: {look}" for look in looks)]
    return sheet(rows, labels), sheet([[rows[1][0], *made.edits], [made.source, *free]], names)


def without_inversion() -> Image.Image:
    """Drawn pictures under inversions, and edited without one: InfEdit, TurboEdit and the Delta Denoising Score."""
    fast, network, rows, labels = pw.load("toybox-fast"), pw.load("toybox"), list[list[Any]](), list[list[str]]()
    for number in (1, 2):
        scene, other, _, _ = swap(random.Random(f"inversions 5000 {number}"))
        picture, prompts = Image.fromarray(render(scene)[0]), (caption(scene), caption(other))
        runs: dict[str, tuple[Any, dict[str, Any]]] = {
            "toybox-fast, direct": (fast, {}),
            "toybox-fast, infedit": (fast, {"inversion": "infedit"}),
            "toybox-fast, turbo-edit": (fast, {"inversion": "turbo-edit"}),
            "toybox, direct": (network, {"steps": 20}),
            "toybox, dds": (network, {"kind": "dds", "steps": 20}),
        }
        made = [pw.edit(*prompts, model=model, image=picture, **more).edited for model, more in runs.values()]
        rows.append([picture, *made])
        labels.append([f"given: {prompts[0]}", *(f"{name}: {prompts[1]}" for name in runs)])
    return sheet(rows, labels)


def kept_original() -> Image.Image:
    """An edit put back into a wide original with grain: all of it, and a part of it pixel by pixel."""
    scene = Scene("grass", "photo", "alone", (Thing("cat", 0.5, 0.9, 0.6),), 5)
    drawn = np.asarray(Image.fromarray(render(scene)[0]).resize((768, 768), Image.Resampling.LANCZOS))
    wide = np.pad(drawn, ((0, 0), (192, 192), (0, 0)), mode="edge").astype(float)
    grain = np.random.default_rng(0).normal(0, 8, (*wide.shape[:2], 1))
    photo = Image.fromarray((wide + grain).clip(0, 255).astype(np.uint8))
    source, steps = caption(scene), 25
    made = pw.edit(source, source.replace("cat", "dog"), image=photo, keep_original=True, steps=steps)
    whole, facts = made.edited, made.report["picture"]["put_back"][0]
    difference = np.abs(np.asarray(whole).astype(int) - np.asarray(photo)).max(-1, keepdims=True).repeat(3, -1)
    enlarged = Image.fromarray(made.sample.pictures[1, 0]).resize((768, 768), Image.Resampling.LANCZOS)
    part, shown = (250, 130, 634, 386), (384, 256)  # left, top, right, bottom in the original
    inside = (part[0] - 192, part[1], part[2] - 192, part[3])
    times = Image.fromarray((2 * difference).clip(0, 255).astype(np.uint8))
    rows = [
        [image.resize(shown, Image.Resampling.LANCZOS) for image in (photo, whole, times)],
        [photo.crop(part), whole.crop(part), enlarged.crop(inside)],
    ]
    return sheet(rows, [
        ["the original, 768 x 1152", f"the edit in it: {facts['replaced']:.0%} of its pixels", "difference, twice"],
        ["a part of the original", "the same part of the edit", "without keep_original: 128 x 128, enlarged"],
    ])  # fmt: skip


def concepts() -> Image.Image:
    """Semantic guidance: concepts beside the prompt."""
    cases = (
        ("a photo of a cat on the grass", "cat", ("cat wearing a hat", "zebra"), 3, 0.1, 0.8),
        ("a photo of a red car in the snow", "red car in the snow", ("blue car in the snow", "red car on the beach"),
         1, 0, 0.7),
    )  # fmt: skip
    rows, labels = list[list[Image.Image]](), list[list[str]]()
    for prompt, old, news, seed, warmup, threshold in cases:
        texts = [prompt.replace(old, new) for new in news]
        led = [pw.SemanticGuidance({text: 5}, warmup, threshold, targets=(r,)) for r, text in enumerate(texts, 1)]
        made = pw.edit(prompt, *[prompt] * len(texts), seed=seed, steps=25, controls=led)
        rows.append([made.source, *made.edits])
        labels.append([prompt, *(f"led to: {text}" for text in texts)])
    return sheet(rows, labels)


def seeds(side: int = 8) -> Image.Image:
    """The first pictures of the embedded model, none chosen: seed n draws the scene and the noise."""
    model, rows = pw.load("toybox"), list[np.ndarray]()
    for first in range(0, side * side, side):
        jobs = [
            Job([caption(random_scene(random.Random(seed)))], pw.noise_for(model, seed), *model.defaults)
            for seed in range(first, first + side)
        ]
        rows.append(np.concatenate([made.pictures[0, 0] for made in sample_jobs(model, jobs)], 1))
    return Image.fromarray(np.concatenate(rows))


def few_steps() -> Image.Image:
    """The same edits by toybox and by toybox-fast, each as it comes."""
    cases = (
        ("a photo of a cat riding a bike in the snow", "bike", "car", 1),
        ("a lion wearing a hat on the grass", "lion", "panda", 0),
        ("a photo of a red car on the grass", "red", "blue", 0),
    )
    rows, labels = list[list[Image.Image]](), list[list[str]]()
    for source, old, new, seed in cases:
        target, row, names = source.replace(old, new), list[Image.Image](), list[str]()
        for name in ("toybox", "toybox-fast"):
            made = pw.edit(source, target, model=load_cached(name), seed=seed)
            row += [made.source, made.edited]
            names += [f"{name}, {made.recipe.steps} steps: {source}", f"edit: {target}"]
        rows.append(row)
        labels.append(names)
    return sheet(rows, labels)


def joint() -> Image.Image:
    """toybox-dit: plain, and the edits of flow models."""
    model, rows, labels = load_cached("toybox-dit"), list[list[Image.Image]](), list[list[str]]()
    cases = (
        ("a photo of a red car on the grass", "red", "blue", "car", 1),
        ("a lion wearing a hat on the grass", "lion", "panda", "lion", 1),
        ("a photo of a cat riding a bike in the snow", "bike", "car", "bike", 0),
    )
    for source, old, new, word, seed in cases:
        target, shape = source.replace(old, new), 1.0 if old == "red" else 0.3
        runs: dict[str, dict[str, Any]] = {
            "joint injection": {},
            "with local blend": {"blend": target.split()[source.split().index(word)]},
            "Consist": {"kind": "consist", "blend": word, "structure": shape},
            "FlowEdit": {"kind": "flow"},
        }
        made = {n: pw.edit(source, target, model=model, seed=seed, compare=not o, **o) for n, o in runs.items()}
        first = made["joint injection"]
        assert first.plain is not None
        rows.append([first.source, Image.fromarray(first.plain[0, 0]), *(result.edited for result in made.values())])
        labels.append([source, f"no control: {target}", *made])
    return sheet(rows, labels)


def weaker(rows: dict[str, tuple[pw.Control, ...]], prompt: str, seeds: int = 4) -> Image.Image:
    """toybox-dit without guidance: the first seeds, none chosen, a row for each list of controls."""
    model, noise = load_cached("toybox-dit"), pw.noise_for(load_cached("toybox-dit"), 0, seeds)
    made = [
        pw.sample(model, [prompt], noise=noise, steps=20, guidance=1, controls=controls).pictures[0]
        for controls in rows.values()
    ]
    return grid_sheet([list(pictures) for pictures in made], list(rows), [f"seed {seed}" for seed in range(seeds)])


def perturbed() -> Image.Image:
    """Perturbed-Attention Guidance by scale."""
    scales = {f"scale {scale:g}": (pw.PerturbedAttentionGuidance(scale),) for scale in (0.5, 1.0, 3.0)}
    return weaker({"without": (), **scales}, RIDING)


def smoothed() -> Image.Image:
    """Smoothed Energy Guidance by the width of the blur."""
    sigmas = {f"sigma {sigma:g}": (pw.SmoothedEnergyGuidance(1.0, sigma),) for sigma in (1.0, 3.0, float("inf"))}
    return weaker({"without": (), **sigmas}, RIDING)


def layers_left_out() -> Image.Image:
    """Skip-Layer Guidance on toybox-dit; the prompts are chosen for what goes wrong without it."""
    model, rows, labels = load_cached("toybox-dit"), list[list[Image.Image]](), list[list[str]]()
    for prompt in ("a lion wearing a hat on the grass", "a photo of a dog riding a bike on the grass"):
        runs = {
            "blocks 3 and 4, default window": ((3, 4), (0.01, 0.2)),
            "blocks 3 and 4, 0.01 to 0.5": ((3, 4), (0.01, 0.5)),
            "block 2, 0.01 to 0.5": ((2,), (0.01, 0.5)),
        }
        controls = [pw.SkipLayerGuidance(2.8, *options, prompts=(row,)) for row, options in enumerate(runs.values(), 1)]
        made = pw.edit(prompt, *[prompt] * len(runs), controls=controls, model=model)
        rows.append([made.source, *made.edits])
        labels.append([prompt, *runs])
    return sheet(rows, labels)


def shapes() -> Image.Image:
    """Prompt mixing: shapes of a car and of a cat, and another object that keeps its own; chosen seeds."""
    wide: dict[str, Any] = {"window": (0.05, 0.5)}
    cases: tuple[tuple[str, int, dict[str, pw.PromptMixing]], ...] = (
        ("a photo of a red car in the snow", 0, {
            "proxy house": pw.PromptMixing("car", "house", targets=(1,)),
            "proxy house, 0.05 to 0.5": pw.PromptMixing("car", "house", targets=(2,), **wide),
            "proxy bike, 0.05 to 0.5": pw.PromptMixing("car", "bike", targets=(3,), **wide),
        }),
        ("a photo of a cat next to a red car in the snow", 1, {
            "proxy house": pw.PromptMixing("car", "house", targets=(1,)),
            "house, 0.05 to 0.5, nothing kept": pw.PromptMixing("car", "house", background=1, targets=(2,), **wide),
            "the same, cat and background kept": pw.PromptMixing("car", "house", preserve="cat", targets=(3,), **wide),
        }),
    )  # fmt: skip
    rows, labels = list[list[Image.Image]](), list[list[str]]()
    for prompt, seed, runs in cases:
        made = pw.edit(prompt, *[prompt] * len(runs), controls=list(runs.values()), seed=seed, steps=25)
        rows.append([made.source, *made.edits])
        labels.append([prompt, *runs])
    return sheet(rows, labels)


def plain_edits() -> dict[str, Image.Image]:
    """The pictures of the first pages: edits as they come."""
    demo = pw.edit("a photo of a cat riding a bike", "a photo of a cat riding a car", compare=True)
    squirrel = "a painting of a squirrel eating a burger"
    targets = squirrel.replace("burger", "pizza"), squirrel.replace("painting", "watercolor painting")
    hat = pw.edit(*HATS, blend="lion", compare=True, seed=1)
    return {"demo": demo.comparison(), "squirrel": pw.edit(squirrel, *targets).comparison(), "hat": hat.comparison()}


def swept() -> Image.Image:
    """A sweep over both windows."""
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    riding = "a photo of a cat riding a bike on the grass", "a photo of a cat riding a car on the grass"
    return pw.sweep(*riding, rows=("self_attention", shares), columns=("cross", shares), steps=25).sheet()


def front() -> Image.Image:
    """What a search of the strengths tried, and its front."""
    source = "a photo of a dog on the grass"
    return pw.find(source, source.replace("dog", "dog wearing a hat"), steps=20, seed=4).sheet()


def directions() -> Image.Image:
    """Two translations by pix2pix-zero."""
    cases = (
        ("a photo of a cat on the grass", "cat", "dog", 0),
        ("a photo of a red car in the snow", "red car", "blue car", 2),
    )
    names = [f"strength {strength}, guidance {guidance}" for strength, guidance in TRANSLATIONS]
    labels = [[prompt, *(f"{a} to {b}: {name}" for name in names)] for prompt, a, b, _ in cases]
    return sheet([translated(*case) for case in cases], labels)


def perceived() -> Image.Image:
    """Three unseen scenes, their segments, what a phrase means, depth, and segments by words without a trained head."""
    zebras = Thing("zebra", 0.27, 0.88, 0.44), Thing("zebra", 0.73, 0.88, 0.44)
    cases = (
        (drawn(7, 18), "the red car", ("tiger", "car")), (drawn(7, 3), "the hat", ("panda", "hat")),
        (Scene("beach", "photo", "next to", zebras, detail=5), "the zebra on the left", ("zebra",)),
    )  # fmt: skip
    rows: list[list[np.ndarray | Image.Image]] = []
    labels: list[list[str]] = []
    for scene, phrase, words in cases:
        picture = render(scene)[0]
        answers = [
            pw.perceive(picture, "segment"), pw.perceive(picture, "refer", phrase=phrase),
            pw.perceive(picture, "depth"), pw.perceive(picture, "segment", words=words),
        ]  # fmt: skip
        side = (256, 256)
        rows.append([Image.fromarray(picture).resize(side), *(a.overlay().resize(side) for a in answers)])
        shares = ", ".join(f"{name} {share:.0%}" for name, share in answers[0].shares.items() if share > 0.01)
        labels.append(["image", shares, phrase, "depth", f"words {', '.join(words)}, no head"])
    return sheet(rows, labels)


def segments() -> Image.Image:
    """Drawn images, what their words look at, and which pixels belong to which word; seeds 0 to 4, none chosen."""
    rows: list[list[np.ndarray]] = []
    labels: list[list[str]] = []
    for seed in range(5):
        scene = random_scene(random.Random(seed), relation=("riding", "eating", "wearing", "next to")[seed % 4])
        words = tuple(thing.noun for thing in scene.things)
        drawn = Image.fromarray(render(scene, 256)[0])
        found = pw.segment(drawn, words, prompt=caption(scene))
        seen = [over(found.maps[..., place], np.asarray(drawn)) for place in range(2)]
        rows.append([np.asarray(drawn), *seen, np.asarray(found.overlay())])
        labels.append([caption(scene), *words, "segmentation"])
    return sheet(rows, labels)


def word_masks() -> Image.Image:
    """Masks of words beside the drawn outline, by the example."""
    path = FOLDER.parents[1] / "examples" / "mask_of_a_word.py"
    with tempfile.TemporaryDirectory() as folder:
        runpy.run_path(str(path))["main"](Path(folder), count=3)
        return Image.open(Path(folder) / "masks.png").convert("RGB")


def world() -> Image.Image:
    """Rendered scenes."""
    rng = random.Random(5)
    scenes = [random_scene(rng) for _ in range(12)]
    pictures, captions = [render(scene)[0] for scene in scenes], [caption(scene) for scene in scenes]
    return sheet([pictures[:6], pictures[6:]], [captions[:6], captions[6:]])


def between_networks() -> dict[str, Image.Image]:
    """Samples of three sentences with the same residuals, and exchanges of drawn images: by sentence and by domain."""
    text, domains = pw.net2net("text"), pw.net2net("domains")
    things = ("a blue bird in a field", "a yellow bird in a forest", "a zebra in a field", "a fox at night")
    sentences = tuple(f"a photo of {thing}" for thing in things)
    drawn = [
        Scene("grass", "photo", "alone", (Thing("panda", 0.45, 0.9, 0.6),), 3),
        Scene("snow", "photo", "alone", (Thing("apple", 0.55, 0.86, 0.66, "red"),), 8),
    ]
    rows, labels = [], []
    for scene in drawn:
        picture, said = render(scene)[0], caption(scene)
        others = [scene.with_(background="desert"), scene.with_(0, noun="fox" if scene is drawn[0] else "house")]
        by_text = text.exchange(picture, said, *(caption(other) for other in others))
        by_label = domains.exchange(picture, "photo, day", "sketch, day", "photo, night")
        rows.append([*by_text.pictures[0], *by_label.pictures[0][2:]])
        labels.append([f"given: {said}", "its code", *by_text.labels[0][2:], *by_label.labels[0][2:]])
    return {
        "net2net": text.sample(*sentences, count=6, seed=0, temperature=0.7).sheet(),
        "net2net-exchange": sheet(rows, labels),
    }


PICTURES: dict[str, Callable[[], Image.Image | dict[str, Image.Image]]] = {
    "rooms": rooms,
    "dit": joint,
    "toybox": seeds,
    "fast": few_steps,
    "sega": concepts,
    "pag": perturbed,
    "seg": smoothed,
    "skip-layer": layers_left_out,
    "prompt-mixing": shapes,
    "given": lambda: dict(zip(("given", "pnp"), given(), strict=True)),
    "without-inversion": without_inversion,
    "keep-original": kept_original,
    "masactrl": mutual,
    "inpainting": inpainting,
    "place": places,
    "compose": colours,
    "edits": plain_edits,
    "weights-snow": lambda: weights("snow", "a photo of a house in the snow"),
    "weights-red": lambda: weights("red", "a photo of a red car on the grass"),
    "maps": lambda: pw.word_maps(DOG).strip(),
    "views": lambda: views(DOG, HATS),
    "sweep": swept,
    "front": front,
    "attend": lambda: attended("a sketch of a tiger with a crown", ("tiger", "crown"), seed=4),
    "translate": directions,
    "world": world,
    "perception": perceived,
    "net2net": between_networks,
    "segments": segments,
    "evaluation": evaluation,
    "word-masks": word_masks,
}


def draw(name: str) -> list[str]:
    """Make a picture, or those of one name, and say what became of each."""
    if name in FIGURES:
        return [f"wrote {path}" for path in FIGURES[name].draw()]
    made = PICTURES[name]()
    said: list[str] = []
    for own, picture in made.items() if isinstance(made, dict) else [(name, made)]:
        path = FOLDER / f"{own}.webp"
        said.append(f"wrote {path}" if put(picture, path) else f"{path} shows the same as before")
    return said


def main() -> None:
    """All pictures, or those named on the command line; the figures of benchmarks come last, and take hours."""
    unknown = set(sys.argv[1:]) - {*PICTURES, *FIGURES}
    if unknown:
        sys.exit(f"Pictures are {', '.join((*PICTURES, *FIGURES))}. Received {', '.join(sorted(unknown))}.")
    progress, failed = Progress(fingerprint()), list[str]()
    for name in sys.argv[1:] or [name for name in (*PICTURES, *FIGURES) if not progress.has(name)]:
        begun = time.perf_counter()
        try:
            said = draw(name)
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        progress.note(name)
        print(*said, f"{name} took {time.perf_counter() - begun:.0f} s", sep="\n", flush=True)
    if failed:
        sys.exit(f'Not made: {" ".join(failed)}. Try them again: make pictures ARGS="{" ".join(failed)}"')


if __name__ == "__main__":
    main()

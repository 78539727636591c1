"""Everything that acts on a run, once for each family: what the tests on a GPU go through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

import promptweave as pw
from promptweave.maps.look import Look

SOURCE, TARGET = "a photo of a cat riding a bike in the snow", "a photo of a dog riding a bike in the snow"
LONGER = "a photo of a red cat riding a bike in the snow"
STEPS = 5
Thing = Callable[[Any], Any]


def joint(model: Any) -> bool:
    return any(site.kind == "joint" for site in model.sites((16, 16)))


def settings(model: Any) -> dict[str, Any]:
    guidance = 3.0 if model.guided or model.defaults[1] != 1.0 else 1.0
    return {"model": model, "steps": STEPS, "guidance": guidance}


def windows(model: Any) -> dict[str, Any]:
    return {"joint": 0.6} if joint(model) else {}


def edited(*targets: str, **options: Any) -> Thing:
    return lambda model: pw.edit(
        SOURCE, *targets, **settings(model), **({} if "kind" in options else windows(model)), **options
    )


def controlled(*controls: Any, target: str = TARGET) -> Thing:
    return lambda model: pw.edit(SOURCE, target, controls=list(controls), **settings(model))


def generated(*controls: Any) -> Thing:
    return lambda model: pw.generate(SOURCE, controls=list(controls), **settings(model))


def guided_away(kind: Any, **options: Any) -> Thing:
    """An attention that is weakened at some layers of the network's own kind."""

    def run(model: Any) -> Any:
        names = [site.name for site in model.sites((16, 16)) if site.kind in ("self", "joint")]
        return pw.edit(SOURCE, TARGET, controls=[pw.Replace(), kind(layers=names[0], **options)], **settings(model))

    return run


def recorded(place: str) -> Thing:
    def run(model: Any) -> Any:
        recording = pw.record(SOURCE, place=place, **windows(model), **settings(model))
        return pw.edit(recording, TARGET, model=model, **windows(model))

    return run


def given_image(model: Any) -> Any:
    image = (np.random.default_rng(0).random((*model.default_size, 3)) * 255).astype(np.uint8)
    return pw.edit(SOURCE, TARGET, image=image, size=model.default_size, **windows(model), **settings(model))


def swept(model: Any) -> Any:
    axis = "joint" if joint(model) else "self_attention"
    return pw.sweep(SOURCE, TARGET, rows=(axis, (0.2, 1)), columns=("seed", (0,)), **settings(model))


EVERYWHERE: dict[str, Thing] = {
    "word swap": edited(TARGET),
    "weight and local blend": edited(TARGET, weights={"snow": 2.0}, blend="dog", threshold=0.95, blend_start=0.0),
    "refine": edited(LONGER),
    "two images and maps": edited(TARGET, images=2, maps=True),
    "three targets": edited(TARGET, LONGER, SOURCE.replace("bike", "car")),
    "given image": given_image,
    "recording on the device": recorded("device"),
    "recording in main memory": recorded("cpu"),
    "recording on disk": recorded("disk"),
    "sweep": swept,
    "look": lambda model: pw.look(SOURCE, self_attention=True, **settings(model)),
    "attend and excite": generated(pw.AttendAndExcite(("cat", "bike"), iterations=2)),
    "shared start": controlled(pw.SharedStart(0.4)),
    "inpainting": controlled(pw.Inpaint(((1.0,) * 8 + (0.0,) * 8,) * 16)),
    "perturbed attention": guided_away(pw.PerturbedAttentionGuidance),
    "smoothed energy": guided_away(pw.SmoothedEnergyGuidance, sigma=2.0),
    "skip layer": controlled(pw.Replace(), pw.SkipLayerGuidance(layers=(1,), window=(0.0, 0.6))),
}
CROSS: dict[str, Thing] = {
    "directed diffusion": generated(pw.DirectedDiffusion({"cat": (0, 0, 0.5, 0.5)})),
    "structured diffusion": generated(pw.StructuredDiffusion(("a cat", "a bike"), "values")),
    "pix2pix-zero": controlled(pw.Pix2PixZero("cat", "dog"), target=SOURCE),
    "masactrl": controlled(pw.MasaCtrl()),
    "masactrl by words": controlled(pw.MasaCtrl(words="bike", start=0.2)),
    "two passes": edited(LONGER, two_pass=True),
    "plug and play": controlled(pw.PlugAndPlay()),
    "delta denoising": controlled(pw.DeltaDenoising(rounds=1)),
    "contrastive denoising": controlled(pw.ContrastiveDenoising(rounds=1)),
    "prompt mixing": controlled(pw.PromptMixing("cat", "dog", threshold=0.95), target=SOURCE),
}
JOINT: dict[str, Thing] = {
    "consist": edited(TARGET, kind="consist", blend="cat"),
    "flow": edited(TARGET, kind="flow"),
    "uniedit": edited(TARGET, kind="uniedit"),
    "directedit": edited(TARGET, kind="directedit", inject=0.4, blend="dog", threshold=0.95),
    "kvedit": edited(TARGET, kind="kvedit", blend="cat", reinitialise=True),
}
GUIDED: dict[str, Thing] = {
    "semantic guidance": controlled(pw.SemanticGuidance({"a dog": 5}, warmup=0.0), target=SOURCE),
    "semantic guidance, where the words look": controlled(
        pw.SemanticGuidance({"a dog": 5}, warmup=0.0, attention=True), target=SOURCE
    ),
}
THINGS = {**EVERYWHERE, **CROSS, **JOINT, **GUIDED}


def acts(name: str, model: Any) -> bool:
    """Whether a family has what a thing acts on."""
    if name in GUIDED:
        return model.guided
    if name == "given image":  # these solvers alone can be walked backwards
        return model.scheduler in ("ddim", "flow-euler")
    return name in EVERYWHERE or (name in JOINT) == joint(model)


def latents(made: Any) -> list[Tensor]:
    """The latents of any kind of result, and the maps of one that was looked at."""
    if isinstance(made, pw.Sweep):
        return [cell.sample.latents for row in made.cells for cell in row]
    if isinstance(made, Look):
        return [made.result.sample.latents, made.words.attention]
    return [made.sample.latents]

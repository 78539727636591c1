"""What an edit did: sites, steps, words, masks and distances to the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from promptweave.editing.put_back import ALL, PutBack
from promptweave.editing.recipe import Recipe
from promptweave.editing.usual_strengths import strengths_report
from promptweave.evaluate.metrics import mse, psnr
from promptweave.inversion import Inverted
from promptweave.methods import Refine, Replace, Reweight
from promptweave.sampling.loop import Sample
from promptweave.words import alignment
from promptweave.words.edit_kinds import weighted_words

LOST = 3.0  # dB that an inversion may lose to the autoencoder before the report names others
TRIED = "PSNR of "  # begins the names of an inversion's figures that are those of others
CHANGED = 8 / 255  # a pixel counts as changed when its mean difference is above this


def effect_report(
    recipe: Recipe,
    made: Sample,
    plain: np.ndarray | None,
    inverted: Inverted | None = None,
    *,
    reproduced: np.ndarray | None = None,
    kept: Sequence[PutBack] = (),
) -> dict[str, Any]:
    """As JSON values: `picture`, `controls`, `strengths` of Prompt-to-Prompt beside those usual for the kind of edit
    (None for targets of other methods), `alignment` of each target, `distance` of each target and image to the source.

    `reproduced`: the input image as the autoencoder reproduces it, uint8 [height, width, 3], unless the source's row is
    just that. `kept`: the originals into which the images were put back.
    """
    words = made.run.words
    return {
        **_given(recipe, made.pictures[0, 0], inverted, reproduced, kept),
        "controls": [
            {"control": type(control).__name__, **report}
            for control, report in zip(recipe.controls, made.reports, strict=False)  # then come recorders
        ],
        "sites": {kind: sum(site.kind == kind for site in made.run.sites) for kind in ("self", "cross", "joint")},
        "strengths": _strengths(recipe, made),
        "alignment": [[asdict(pair) for pair in alignment(words[0], target)] for target in words[1:]],
        "distance": [
            [distance_of(made.pictures[0, i], made.pictures[row, i]) for i in range(recipe.images)]
            for row in range(1, len(words))
        ],
        "distance_uncontrolled": None
        if plain is None
        else [[distance_of(made.pictures[0, i], row[i]) for i in range(recipe.images)] for row in plain],
    }


def _strengths(recipe: Recipe, made: Sample) -> list[dict[str, Any] | None]:
    """For each target the windows of its injection, and those that are usual for its kind of edit."""
    source, *targets = made.run.words
    names = ("joint",) if any(site.kind == "joint" for site in made.run.sites) else ("cross", "self_attention")
    weights = [control.weights for control in recipe.controls if isinstance(control, Reweight)]
    weighted = weighted_words({word: factor for each in weights for word, factor in each.items()})
    found: list[dict[str, Any] | None] = []
    for row, target in enumerate(targets, 1):
        injected = [
            control
            for control in recipe.controls
            if isinstance(control, Replace | Refine) and row in (control.targets or (row,))
        ]
        windows = {name: getattr(injected[0], name) for name in names} if injected else {}
        found.append(strengths_report(source, target, recipe.steps, windows, weighted) if injected else None)
    return found


def _given(
    recipe: Recipe,
    source: np.ndarray,
    inverted: Inverted | None,
    reproduced: np.ndarray | None,
    kept: Sequence[PutBack],
) -> dict[str, Any]:
    """What became of the input image, if there is one, how it was inverted, and the PSNR of the source to it."""
    picture = recipe.root.picture
    if picture is None:
        return {}
    put = {"put_back": [one.report() for one in kept[1:]]} if kept else {}
    if recipe.base is not None:
        return {"picture": {**picture.report(), **put}} if kept else {}
    if inverted is None and any("noise" not in control.needs for control in recipe.controls):
        return {"picture": {**picture.report(), **put}}  # its run starts from the image itself
    how = recipe.inversion if inverted is None else inverted.method.spec
    figures = {"figures": dict(inverted.figures)} if inverted is not None and inverted.figures else {}
    pixels = picture.pixels()
    near = round(psnr(pixels, source), 3)
    best = {} if reproduced is None else {"psnr_autoencoder": round(psnr(pixels, reproduced), 3)}
    return {"picture": {"psnr": near, **best, "inversion": how, **figures, **picture.report(), **put}}


def inversion_told(facts: Mapping[str, Any]) -> list[str]:
    """How the input image was inverted, as sentences: the PSNR of the source, what lost much, what was tried.

    `facts`: `picture` of a report.
    """
    if "psnr" not in facts:  # an edit of an edit
        return []
    near, best, how = facts["psnr"], facts.get("psnr_autoencoder"), facts["inversion"]
    alone = "" if best is None else f", of {best:.1f} dB that the autoencoder allows"
    said = [f"inversion {how}: PSNR of the source to the input image {near:.1f} dB{alone}"]
    figures = facts.get("figures", {})
    tried = [f"{n.removeprefix(TRIED)} {value:.1f} dB" for n, value in figures.items() if n.startswith(TRIED)]
    said += [f"tried: {', '.join(tried)}"] if tried else []
    others = [f"{name} {value:.4g}" for name, value in figures.items() if not name.startswith(TRIED)]
    said += [", ".join(others)] if others else []
    if best is not None and near < best - LOST and not tried:
        said.append(
            f"that is {best - near:.1f} dB less than the autoencoder allows, so much of the image is lost before the "
            "edit: inversion auto tries the others and takes the best"
        )
    return said


def put_back_told(facts: Mapping[str, Any]) -> list[str]:
    """What of the original was replaced, as a sentence for each target. `facts`: `picture` of a report."""
    said: list[str] = []
    for number, one in enumerate(facts.get("put_back", ()), 1):
        share, frame = one["replaced"], one["of_frame"]
        how = "where the edit differs from the source" + (" inside its region" if one["confined"] else "")
        if not frame:
            text = "nothing changed, so it is the original as it was"
        elif frame >= ALL:
            text = f"nothing to keep: the edit changed all that the model saw, {share:.0%} of the original"
        else:
            text = f"{share:.1%} of the original replaced, {how}; all other pixels are the original's"
        text += f"; {one['hidden']:.0%} of what was replaced is fully transparent" if one.get("hidden") else ""
        said.append(f"put back into the original, target {number}: {text}")
    return said


def distance_of(source: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """How far an image, uint8 [height, width, 3], is from its source."""
    difference = np.abs(source.astype(float) - target.astype(float)).mean(-1) / 255
    return {
        "psnr": round(psnr(source, target), 3),
        "mse": round(mse(source, target), 6),
        "changed_pixels": round(float((difference > CHANGED).mean()), 4),
    }

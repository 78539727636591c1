"""What an edit did: sites, steps, words, masks and distances to the source."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from promptweave.editing.recipe import Recipe
from promptweave.evaluate.metrics import mse, psnr
from promptweave.inversion import Inverted
from promptweave.sampling.loop import Sample
from promptweave.words import alignment

CHANGED = 8 / 255  # a pixel counts as changed when its mean difference is above this


def effect_report(
    recipe: Recipe, made: Sample, plain: np.ndarray | None, inverted: Inverted | None = None
) -> dict[str, Any]:
    """As JSON values: `controls`, `alignment` of each target, `distance` of each target and image to the source."""
    words = made.run.words
    return {
        "controls": [
            {"control": type(control).__name__, **report}
            for control, report in zip(recipe.controls, made.reports, strict=False)  # then come recorders
        ],
        "sites": {kind: sum(site.kind == kind for site in made.run.sites) for kind in ("self", "cross", "joint")},
        "alignment": [[asdict(pair) for pair in alignment(words[0], target)] for target in words[1:]],
        "distance": [
            [_distance(made.pictures[0, i], made.pictures[row, i]) for i in range(recipe.images)]
            for row in range(1, len(words))
        ],
        **_given(recipe, made.pictures[0, 0], inverted),
        "distance_uncontrolled": None
        if plain is None
        else [[_distance(made.pictures[0, i], row[i]) for i in range(recipe.images)] for row in plain],
    }


def _given(recipe: Recipe, source: np.ndarray, inverted: Inverted | None) -> dict[str, Any]:
    """What became of the input image, if there is one, how it was inverted, and the PSNR of the source to it."""
    picture = recipe.root.picture
    if picture is None or recipe.base is not None:
        return {}
    if inverted is None and any("noise" not in control.needs for control in recipe.controls):
        return {"picture": picture.report()}  # its run starts from the image itself
    how = recipe.inversion if inverted is None else inverted.method.spec
    figures = {"figures": dict(inverted.figures)} if inverted is not None and inverted.figures else {}
    near = round(psnr(picture.pixels(), source), 3)
    return {"picture": {"inversion": how, "psnr": near, **figures, **picture.report()}}


def _distance(source: np.ndarray, target: np.ndarray) -> dict[str, float]:
    difference = np.abs(source.astype(float) - target.astype(float)).mean(-1) / 255
    return {
        "psnr": round(psnr(source, target), 3),
        "mse": round(mse(source, target), 6),
        "changed_pixels": round(float((difference > CHANGED).mean()), 4),
    }

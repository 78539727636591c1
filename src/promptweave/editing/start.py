"""The starting noise of a run: seeded, or found by inverting an input image."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from promptweave.core.control import Control, FirstPass
from promptweave.core.precision import precision
from promptweave.editing.recipe import Recipe
from promptweave.inversion.ddim import invert
from promptweave.inversion.regularised import Regularised
from promptweave.models.base import Model
from promptweave.sampling.loop import noise_for
from promptweave.sampling.recording import Track
from promptweave.sampling.walk import Progress


@dataclass(frozen=True, eq=False)
class Start:
    """`noise` [images, channels, h, w], the controls that pin the source, and what is known of it before the run."""

    noise: torch.Tensor
    controls: tuple[Control, ...] = ()
    first_pass: FirstPass | None = None


def start(recipe: Recipe, model: Model, source: Track | None = None, progress: Progress | None = None) -> Start:
    """The start of a recipe's run; `source`: the recording of its source, if there is one.

    An input image is inverted under the source's prompt without guidance. With "direct" and "regularised" the source
    is pinned to the inverted trajectory; with "ddim" it is generated again from the noise. Controls that start from
    the image itself (FlowEdit) need no inversion.
    """
    picture = recipe.root.picture
    if picture is None:
        return Start(noise_for(model, recipe.seed, recipe.images, recipe.size))
    if source is not None:
        return Start(source.latents(0))
    latents = model.to_latent(torch.from_numpy(picture.pixels().copy())[None].to(precision(model.dtype)) / 255)
    if any("noise" not in control.needs for control in recipe.controls):
        known = FirstPass(latents.to(model.device))
        return Start(noise_for(model, recipe.seed, recipe.images, recipe.size), (), known)
    correct = Regularised(seed=recipe.seed) if recipe.inversion == "regularised" else None
    found = invert(
        model, latents, recipe.source, steps=recipe.steps, correct=correct, progress=progress, truncate=recipe.truncate
    )
    return Start(found.noise, () if recipe.inversion == "ddim" else (found.pin,))

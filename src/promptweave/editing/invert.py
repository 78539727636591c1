"""Invert an image once, to edit it many times."""

from __future__ import annotations

from typing import Unpack

from promptweave.core.typed import checked
from promptweave.editing.inverted_file import InvertedImage
from promptweave.editing.picture import Given, Picture
from promptweave.editing.plan import check_lengths, recipe_for
from promptweave.editing.settings import RunOptions, Settings, split
from promptweave.editing.start import start
from promptweave.evaluate.metrics import psnr
from promptweave.inversion import Inversion
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.sampling.loop import decode, sample
from promptweave.sampling.walk import Progress


@checked
def invert(
    prompt: str,
    image: Given | Picture,
    *,
    model: Model | str = "toybox",
    inversion: str | Inversion = "direct",
    settings: Settings | None = None,
    progress: Progress | None = None,
    **options: Unpack[RunOptions],
) -> InvertedImage:
    """Invert `image`, which `prompt` describes: the result is the source of any number of edits, and can be saved.

    `inversion`: one of `promptweave.inversion`, or its name and options, "null-text:rounds=5". Options: the fields of
    `Settings`, as keywords or as `settings`; edits use the same. The source is generated once, to measure how well it
    is reproduced (`InvertedImage.psnr`). Raises PromptTooLong, and CannotInvert for a model that cannot be inverted so.
    """
    network = load_cached(model) if isinstance(model, str) else model
    chosen = (settings or Settings()).with_(*split("invert", options, Settings))
    recipe = recipe_for(network, prompt, (), chosen, image=image, inversion=inversion)
    recipe.check()
    check_lengths(recipe, network)
    begin = start(recipe, network, progress=progress)
    found = begin.inverted
    assert found is not None and recipe.picture is not None
    if found.pinned:
        shown = decode(network, found.path[-1][None])[0, 0]
    else:
        made = sample(
            network, [prompt], noise=found.noise, steps=recipe.steps, guidance=recipe.guidance, controls=found.controls,
            negative=recipe.negative, seed=recipe.seed, inverted=found,
        )  # fmt: skip
        shown = made.pictures[0, 0]
    value = psnr(recipe.picture.pixels(), shown)
    return InvertedImage(recipe, network.fingerprint(), found, round(value, 3))

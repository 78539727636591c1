"""Inpaint: regenerate what a mask covers in a given image."""

from __future__ import annotations

from typing import Any, Unpack

from promptweave.core.clock import Number
from promptweave.core.typed import checked
from promptweave.editing.edit import run
from promptweave.editing.found_masks import finder_of
from promptweave.editing.masks import read_mask, with_controls
from promptweave.editing.picture import Given, Picture
from promptweave.editing.plan import bind, check_lengths, check_options, recipe_for
from promptweave.editing.recorders import edit_watch
from promptweave.editing.result import Result
from promptweave.editing.settings import RunOptions, Settings, split
from promptweave.editing.values import read_options
from promptweave.methods import Inpaint
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.sampling.walk import Progress


class InpaintOptions(RunOptions, total=False):
    """The fields of `Inpaint` and of `Settings` as keyword arguments."""

    strength: Number
    resamplings: int
    jump: int
    fresh: bool | None
    blended: bool | None


@checked
def inpaint(
    image: Given | Picture,
    prompt: str,
    *,
    mask: Any,
    source: str | None = None,
    model: Model | str = "toybox",
    settings: Settings | None = None,
    compare: bool = False,
    maps: bool = False,
    progress: Progress | None = None,
    **options: Unpack[InpaintOptions],
) -> Result:
    """Regenerate what `mask` covers in `image`, as `prompt` says; latents outside the mask stay those of the image.

    `prompt` describes the whole image as it should become. `mask`: what `read_mask` reads (a path, an array, a Pillow
    image), white where the image may change; or `WordMask("hair")`, `DiffEditMask()`, which find it. `source`: what the
    image shows now, for masks that are found; None: the prompt itself. Inpainting checkpoints read the mask and the
    image around it; with any other model latents are blended at every step (see `Inpaint`). Options: the fields of
    `Inpaint` and of `Settings`, as keywords or as `settings`. `compare` also makes the image without the mask;
    `maps` records the word maps of both rows (`edit_maps`).

    Row 0 of the result is the given image, row 1 the inpainted one (`result.edited`). Raises NoEffect for an empty
    mask, PromptTooLong, and ValueError for what a model cannot do.
    """
    network = load_cached(model) if isinstance(model, str) else model
    own, run_options = split("inpaint", options, Inpaint, Settings)
    chosen = (settings or Settings()).with_(run_options)
    recipe = recipe_for(network, source or prompt, (prompt,), chosen, image=image)
    recipe.check()
    check_lengths(recipe, network)
    finder = finder_of(mask)
    found = read_mask(mask) if finder is None else finder.find(recipe, network)
    recipe = with_controls(recipe, [Inpaint(mask=found, **read_options(Inpaint, own))], network)
    check_options(recipe.controls)
    bind(recipe, network)
    watch = edit_watch(recipe, network) if maps else ()
    return run(recipe, network, compare=compare, watch=watch, progress=progress)

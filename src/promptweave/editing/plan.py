"""From options to a recipe: everything is checked here, before the network runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import torch

from promptweave.core.clock import Number
from promptweave.core.control import Control, NoEffect, Run
from promptweave.core.fields import options_of
from promptweave.core.shown import shown
from promptweave.editing.found_masks import finder_of
from promptweave.editing.inversions import read_inversion
from promptweave.editing.inverted_file import InvertedImage
from promptweave.editing.masks import with_controls, with_read_mask
from promptweave.editing.options import PromptToPrompt
from promptweave.editing.picture import Given, Picture
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording, recipe_of
from promptweave.editing.settings import RunOptions, Settings, split
from promptweave.editing.values import BadValue, read_options, read_value
from promptweave.editing.who_reads import Unread, check_read
from promptweave.inversion import Inversion
from promptweave.models.base import Model
from promptweave.sampling.guidance import effective
from promptweave.sampling.loop import FLOW, Job, latent_grid
from promptweave.sampling.noise_levels import check_channels
from promptweave.sampling.solver import visited
from promptweave.words.lengths import PromptTooLong as PromptTooLong


def usual(model: Model, steps: int | None = None, guidance: Number | None = None) -> tuple[int, Number]:
    """Steps and guidance: those given, else the model's defaults."""
    own = model.defaults
    return own[0] if steps is None else steps, own[1] if guidance is None else guidance


def recipe_for(
    model: Model,
    source: str,
    targets: tuple[str, ...] = (),
    settings: Settings | None = None,
    *,
    image: Given | Picture | None = None,
    inversion: str | Inversion | None = None,
    **options: Unpack[RunOptions],
) -> Recipe:
    """A recipe without controls; settings that are None take their default, or the model's."""
    chosen = (settings or Settings()).with_(*split("A recipe", options, Settings))
    steps, guidance = usual(model, chosen.steps, chosen.guidance)
    if inversion is not None and image is None:
        raise Unread(
            f"inversion says how an input image is turned into noise; there is none. Received inversion={inversion!r}. "
            "Give an image, or leave inversion out."
        )
    if (chosen.negative or "").strip() and (not model.guided or effective(model, guidance) == 1):
        why = f"guidance {guidance:g}" if model.guided else f"{model.name}, whose guidance is an input of the network"
        raise Unread(
            "Nothing reads negative here: a negative prompt is the unconditional half of classifier-free guidance. "
            f"Received {why}. Leave the negative prompt out{', or raise guidance above 1' if model.guided else ''}."
        )
    size, picture = fitted_image(model, image, chosen)
    return Recipe(
        source,
        targets,
        seed=chosen.seed or 0,
        images=1 if chosen.images is None else chosen.images,
        steps=steps,
        guidance=guidance,
        size=size,
        negative=chosen.negative or "",
        model=model.name,
        truncate=chosen.truncate,
        scheduler=model.scheduler,
        chunks=model.reading.chunks,
        prompt_weights=model.reading.weights,
        picture=picture,
        inversion=read_inversion(inversion or "direct").spec,
    )


def fitted_image(
    model: Model, image: Given | Picture | None, settings: Settings
) -> tuple[tuple[int, int] | None, Picture | None]:
    """The size of the result, None for the model's own, and the input image in that size, if there is one.

    Raises Unread for settings of an image without one, and what `Picture.of` raises.
    """
    size, fit = settings.size, settings.fit
    if image is None:
        for name, value, what in (
            ("size", size if size == "auto" else None, "shape"),
            ("fit", fit, "way to the size"),
            ("keep_original", settings.keep_original or None, "pixels"),
        ):
            if value is not None:
                raise Unread(
                    f"{name}={value!r} is about the {what} of an input image; there is none. Give an image, or leave "
                    f"{name} out."
                )
        return size if size != "auto" else None, None
    if size is not None and size != "auto":
        latent_grid(model, size)
    picture = Picture.brought(image, size, fit, model.default_size, model.multiple, keep=settings.keep_original)
    return (picture.size if size == "auto" else size), picture


def plan(
    source: str | Recording | InvertedImage,
    targets: Sequence[str],
    model: Model,
    options: Mapping[str, Any],
    settings: Settings | None = None,
    *,
    controls: Sequence[Control] | None = None,
    image: Given | Picture | None = None,
    inversion: str | Inversion | None = None,
) -> Recipe:
    """The recipe of an edit; if `source` is a recording or an inverted image, with its settings.

    `options`: the fields of `PromptToPrompt` that were given. Raises Unread for one that nothing reads, unless it
    requests nothing (None, no words). `controls` replace those that the options request. Masks, of options and of
    controls, go the way of the input image.
    """
    options = {name: value for name, value in options.items() if not _nothing(value)}
    finder = finder_of(options.get("mask"))
    options = {**options, "mask": ((1.0,),)} if finder else with_read_mask(options)  # until it can be found
    if controls is not None and options:
        raise Unread(
            f"Nothing reads {next(iter(options))} here: controls replace those that the options request. "
            "Give one or the other."
        )
    edit = PromptToPrompt(**read_options(PromptToPrompt, options))
    prompt = source if isinstance(source, str) else source.prompt
    targets = tuple(targets) or ((prompt,) if edit.weights or edit.kind == "inpaint" else ())
    if not targets:
        raise NoEffect("An edit needs a target prompt, or weights for words of the source. Received neither.")
    if not isinstance(source, str):
        if image is not None:
            raise ValueError("A recording already has its image. Leave image out, or record it: record(image=...).")
        recipe = _on_recording(source, targets, model, settings or Settings(), inversion)
    else:
        recipe = recipe_for(model, source, targets, settings, image=image, inversion=inversion)
    recipe.check()
    check_lengths(recipe, model)
    edit = edit if finder is None else replace(edit, mask=finder.find(recipe, model))
    planned = with_controls(recipe, edit.build(model, recipe) if controls is None else listed_controls(controls), model)
    made = planned.controls
    check_options(made)
    check_read(options, made, bind(recipe, model, whole=False))
    published = next((control.inversion for control in made if control.inversion), None)
    if image is not None and inversion is None and published:
        planned = replace(planned, inversion=read_inversion(published).spec)
    check_inverted(made, inversion)
    return planned


def check_inverted(controls: Sequence[Control], inversion: str | Inversion | None) -> None:
    """Raise Unread for an inversion beside a control that starts from the image itself."""
    without = [type(control).__name__ for control in controls if "noise" not in control.needs]
    if inversion is not None and without:
        raise Unread(
            f"Nothing reads inversion here: {without[0]} starts from the image itself, not from noise. Leave it out."
        )


def listed_controls(controls: Any) -> tuple[Control, ...]:
    """The controls. Raises BadValue if they are none."""
    if not isinstance(controls, list | tuple) or not all(isinstance(control, Control) for control in controls):
        raise BadValue(f"controls are a list of controls, such as [Replace()]. Received {shown(controls)}.")
    return tuple(controls)


def check_options(controls: Sequence[Control]) -> None:
    """Raise BadValue, which names the option, for one of a wrong type; ranges are the controls' own to check."""
    for control in controls:
        for listed in options_of(type(control)):
            read_value(listed.type, getattr(control, listed.name), f"{listed.name} of {type(control).__name__}")


def _nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str | Sequence | Mapping) and not value)


def _on_recording(
    recording: Recording | InvertedImage,
    targets: tuple[str, ...],
    model: Model,
    settings: Settings,
    inversion: str | Inversion | None,
) -> Recipe:
    """The recipe of an edit of a recording. Raises ValueError for settings that differ from the recording's."""
    recording.check(model)
    recipe = recipe_of(recording, targets)
    if inversion is not None and recipe.root.picture is None:
        raise Unread("inversion says how an input image is turned into noise; the recording has none. Leave it out.")
    given = {**vars(settings), "inversion": None if inversion is None else read_inversion(inversion).spec}
    for name, value in given.items():
        unasked = value is None or (name in ("truncate", "keep_original") and not value)
        if not unasked and name != "truncate" and value != getattr(recipe, name):
            raise ValueError(
                f"An edit of a recording uses the recording's {name}, {getattr(recipe, name)!r}. Received {value!r}. "
                "Leave it out, or record it again."
            )
    return replace(recipe, truncate=recipe.truncate or settings.truncate)


def bind(recipe: Recipe, model: Model, *, whole: bool = True) -> Run:
    """Bind the recipe's controls to its run. Raises whatever running it would raise before its first step; not `whole`:
    as far as its controls alone are wrong."""
    shape = (recipe.images, model.channels, *latent_grid(model, recipe.size))
    noise = torch.empty(shape, device="meta")  # its shape is all that is read
    job = Job(
        recipe.prompts, noise, recipe.steps, recipe.guidance, recipe.controls, recipe.negative,
        truncate=recipe.truncate,
    )  # fmt: skip
    run, hooks = job.bind(model)
    if whole:
        check_channels(model, hooks)
    return run


def steps_of_run(recipe: Recipe, model: Model) -> int:
    """The steps that a recipe's run makes; a control may choose other times than the model's solver."""
    visits = None if model.scheduler == FLOW else visited(recipe.controls, model.schedule, recipe.steps, recipe.seed)
    return recipe.steps if visits is None else len(visits.steps)


def check_lengths(recipe: Recipe, model: Model) -> None:
    """Raise PromptTooLong for a prompt that the model would not read to its end, unless the recipe allows it.

    What controls read is checked where they are bound, and everything once more where it is encoded.
    """
    if recipe.truncate:
        return
    for number, prompt in enumerate(recipe.prompts, 1):
        model.check_length(prompt, f"Prompt {number}", recipe.steps)
    model.check_length(recipe.negative, "The negative prompt", recipe.steps)

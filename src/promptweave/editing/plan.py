"""From options to a recipe: everything is checked here, before the network runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

from promptweave.core.clock import Number
from promptweave.core.control import Control, NoEffect, Run
from promptweave.core.fields import options_of
from promptweave.core.shown import shown
from promptweave.editing.options import PromptToPrompt, Unread, check_read
from promptweave.editing.picture import Given, Picture
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording, recipe_of
from promptweave.editing.settings import RunOptions, Settings, split
from promptweave.editing.values import BadValue, read_options, read_value
from promptweave.models.base import Model
from promptweave.sampling.loop import Job, noise_for


class PromptTooLong(ValueError):
    """A prompt that exceeds the model's token limit."""


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
    inversion: str | None = None,
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
    picture = None if image is None else Picture.of(image, chosen.size or model.default_size)
    return Recipe(
        source,
        targets,
        seed=chosen.seed or 0,
        images=1 if chosen.images is None else chosen.images,
        steps=steps,
        guidance=guidance,
        size=chosen.size,
        negative=chosen.negative or "",
        model=model.name,
        truncate=chosen.truncate,
        scheduler=model.scheduler,
        chunks=model.reading.chunks,
        prompt_weights=model.reading.weights,
        picture=picture,
        inversion=inversion or "direct",
    )


def plan(
    source: str | Recording,
    targets: Sequence[str],
    model: Model,
    options: Mapping[str, Any],
    settings: Settings | None = None,
    *,
    controls: Sequence[Control] | None = None,
    image: Given | Picture | None = None,
    inversion: str | None = None,
) -> Recipe:
    """The recipe of an edit; if `source` is a recording, with the recording's settings.

    `options`: the fields of `PromptToPrompt` that were given. Raises Unread for one that nothing reads, unless it
    requests nothing (None, no words). `controls` replace those that the options request.
    """
    options = {name: value for name, value in options.items() if not _nothing(value)}
    if controls is not None and options:
        raise Unread(
            f"Nothing reads {next(iter(options))} here: controls replace those that the options request. "
            "Give one or the other."
        )
    edit = PromptToPrompt(**read_options(PromptToPrompt, options))
    prompt = source.prompt if isinstance(source, Recording) else source
    targets = tuple(targets) or ((prompt,) if edit.weights else ())
    if not targets:
        raise NoEffect("An edit needs a target prompt, or weights for words of the source. Received neither.")
    if isinstance(source, Recording):
        if image is not None:
            raise ValueError("A recording already has its image. Leave image out, or record it: record(image=...).")
        recipe = _on_recording(source, targets, model, settings or Settings(), inversion)
    else:
        recipe = recipe_for(model, source, targets, settings, image=image, inversion=inversion)
    recipe.check()
    check_lengths(recipe, model)
    made = edit.build(model, recipe) if controls is None else checked(controls)
    check_read(options, made, bind(recipe, model))
    without = [type(control).__name__ for control in made if "noise" not in control.needs]
    if inversion is not None and without:
        raise Unread(
            f"Nothing reads inversion here: {without[0]} starts from the image itself, not from noise. Leave it out."
        )
    return replace(recipe, controls=made)


def checked(controls: Any) -> tuple[Control, ...]:
    """The controls, with the types of their options checked. Raises BadValue, which names the option."""
    if not isinstance(controls, list | tuple) or not all(isinstance(control, Control) for control in controls):
        raise BadValue(f"controls are a list of controls, such as [Replace()]. Received {shown(controls)}.")
    for control in controls:
        for listed in options_of(type(control)):
            name = f"{listed.name} of {type(control).__name__}"
            read_value(listed.type, getattr(control, listed.name), name)  # its range is the control's own to check
    return tuple(controls)


def _nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str | Sequence | Mapping) and not value)


def _on_recording(
    recording: Recording, targets: tuple[str, ...], model: Model, settings: Settings, inversion: str | None
) -> Recipe:
    """The recipe of an edit of a recording. Raises ValueError for settings that differ from the recording's."""
    recording.check(model)
    recipe = recipe_of(recording, targets)
    if inversion is not None and recipe.root.picture is None:
        raise Unread("inversion says how an input image is turned into noise; the recording has none. Leave it out.")
    given = {**vars(settings), "inversion": inversion}
    for name, value in given.items():
        if name != "truncate" and value is not None and value != getattr(recipe, name):
            raise ValueError(
                f"An edit of a recording uses the recording's {name}, {getattr(recipe, name)!r}. Received {value!r}. "
                "Leave it out, or record anew."
            )
    return replace(recipe, truncate=recipe.truncate or settings.truncate)


def bind(recipe: Recipe, model: Model) -> Run:
    """Bind the recipe's controls to its run. Raises whatever running it would raise before its first step."""
    noise = noise_for(model, recipe.seed, recipe.images, recipe.size)
    return Job(recipe.prompts, noise, recipe.steps, recipe.guidance, recipe.controls).bind(model)[0]


def check_lengths(recipe: Recipe, model: Model) -> None:
    """Raise PromptTooLong for words that the model would not read, unless the recipe allows truncation."""
    for number, prompt in enumerate(recipe.prompts, 1):
        words = model.words(prompt)
        if words.truncated and not recipe.truncate:
            raise PromptTooLong(
                f"Prompt {number} is longer than the {words.limit} tokens that the model reads: "
                f"it would not see {words.truncated[0].text!r} and what follows. "
                "Shorten the prompt, or allow truncation with truncate=True (--truncate)."
            )

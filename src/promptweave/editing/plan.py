"""From what a person asks to a recipe: everything is checked here, before the network runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from promptweave.core.clock import Number
from promptweave.core.control import NoEffect
from promptweave.editing.options import Options, build_controls
from promptweave.editing.picture import Given, Picture
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording, recipe_of
from promptweave.models.base import Model
from promptweave.sampling.loop import Job, noise_for


class PromptTooLong(ValueError):
    """A prompt with words beyond the model's length."""


def settings(model: Model, steps: int | None, guidance: Number | None) -> tuple[int, Number]:
    """Steps and guidance: those given, else those that suit the model."""
    usual = model.defaults
    return usual[0] if steps is None else steps, usual[1] if guidance is None else guidance


def recipe_for(
    model: Model,
    source: str,
    targets: tuple[str, ...] = (),
    seed: int | None = None,
    images: int | None = None,
    steps: int | None = None,
    guidance: Number | None = None,
    size: tuple[int, int] | None = None,
    negative: str | None = None,
    truncate: bool = False,
    image: Given | Picture | None = None,
    inversion: str | None = None,
) -> Recipe:
    """A recipe without controls; None stands for what is usual, or suits the model."""
    steps, guidance = settings(model, steps, guidance)
    picture = None if image is None else Picture.of(image, size or model.default_size)
    return Recipe(
        source, targets, (), 0 if seed is None else seed, 1 if images is None else images, steps, guidance, size,
        negative or "", model.name, truncate, model.scheduler, chunks=model.reading.chunks,
        prompt_weights=model.reading.weights, picture=picture, inversion=inversion or "direct",
    )  # fmt: skip


def plan(
    source: str | Recording,
    targets: Sequence[str],
    model: Model,
    options: Options,
    *,
    seed: int | None = None,
    images: int | None = None,
    steps: int | None = None,
    guidance: Number | None = None,
    size: tuple[int, int] | None = None,
    negative: str | None = None,
    truncate: bool = False,
    image: Given | Picture | None = None,
    inversion: str | None = None,
) -> Recipe:
    """The recipe of an edit; of a recording's, with the recording's settings."""
    prompt = source.prompt if isinstance(source, Recording) else source
    targets = tuple(targets) or ((prompt,) if options.weights else ())
    if not targets:
        raise NoEffect("An edit needs a target prompt, or weights for words of the source. Received neither.")
    if isinstance(source, Recording):
        given = {"seed": seed, "images": images, "steps": steps, "guidance": guidance, "size": size,
                 "negative": negative, "inversion": inversion}  # fmt: skip
        if image is not None:
            raise ValueError("A recording has a picture already. Leave the image out, or record it: record(image=...).")
        recipe = _on_recording(source, targets, model, given, truncate)
    else:
        recipe = recipe_for(
            model, source, targets, seed, images, steps, guidance, size, negative, truncate, image, inversion
        )
    recipe.check()
    check_lengths(recipe, model)
    return replace(recipe, controls=build_controls(model, recipe, options))


def _on_recording(
    recording: Recording, targets: tuple[str, ...], model: Model, given: Mapping[str, Any], truncate: bool
) -> Recipe:
    """The recipe of an edit of a recording; raises on settings that are not the recording's."""
    recording.check(model)
    recipe = recipe_of(recording, targets)
    for name, value in given.items():
        if value is not None and value != getattr(recipe, name):
            raise ValueError(
                f"An edit of a recording has the recording's {name}, {getattr(recipe, name)!r}. Received {value!r}. "
                "Leave it out, or record anew."
            )
    return replace(recipe, truncate=recipe.truncate or truncate)


def bind(recipe: Recipe, model: Model) -> None:
    """Raise what running the recipe would raise before its first step."""
    noise = noise_for(model, recipe.seed, recipe.images, recipe.size)
    Job(recipe.prompts, noise, recipe.steps, recipe.guidance, recipe.controls).bind(model)


def check_lengths(recipe: Recipe, model: Model) -> None:
    """Raise on words that the model would not read, unless the recipe allows them."""
    for number, prompt in enumerate(recipe.prompts, 1):
        words = model.words(prompt)
        if words.truncated and not recipe.truncate:
            raise PromptTooLong(
                f"Prompt {number} is longer than the {words.limit} tokens that the model reads: "
                f"it would not see {words.truncated[0].text!r} and what follows. "
                "Shorten the prompt, or allow the cut with truncate=True (--truncate)."
            )

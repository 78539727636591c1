"""Edit a picture by changing its prompt: the library's main sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from promptweave.controls import Kind, Number, Span, build_controls
from promptweave.core.control import Control, NoEffect
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.recipe import Recipe
from promptweave.record import Recording, base_of, recipe_of, record_run
from promptweave.report import effect_report
from promptweave.result import Result
from promptweave.sampling.loop import Progress, Sample, latent_grid, noise_for, sample
from promptweave.sampling.recording import Kept, Place, Track


class PromptTooLong(ValueError):
    """A prompt with words beyond the model's length."""


def record(
    prompt: str | Result,
    *,
    row: int = 1,
    model: Model | str = "toybox",
    cross: Span = 0.8,
    self_attention: Span = 0.4,
    joint: Span = 0.2,
    self_grid: int | None = None,
    maps: bool = True,
    values: bool = False,
    place: Place = "cpu",
    budget: int | None = None,
    seed: int = 0,
    images: int = 1,
    steps: int | None = None,
    guidance: Number | None = None,
    size: tuple[int, int] | None = None,
    negative: str = "",
    truncate: bool = False,
    progress: Progress | None = None,
) -> Recording:
    """Make a picture and keep what edits of it read, so that an edit needs the target's rows only.

    `prompt` may be an edit's result: its target `row` then becomes a source, and the settings are those of its run.

    `cross`, `self_attention`, `joint`: the windows in which the source's queries and keys are kept; edits may use any
    windows inside. `self_grid`: pixels of the largest self-attention map. `maps`: what word maps and local blends read.
    `values`: also the values. `place`: "cpu", "device" or "disk". `budget`: bytes above which TooLarge is raised before
    anything is computed.
    """
    network = load_cached(model) if isinstance(model, str) else model
    kept = Kept(cross, self_attention, joint, self_grid, maps, values)
    if isinstance(prompt, Result):
        base = base_of(prompt.recipe, network, progress)
        source = None if base is None else base.track
        return record_run(
            prompt.recipe, network, row=row, kept=kept, place=place, budget=budget, progress=progress, source=source
        )
    steps, guidance = settings(network, steps, guidance)
    recipe = Recipe(
        prompt, (), (), seed, images, steps, guidance, size, negative, network.name, truncate, network.scheduler
    )
    recipe.check()
    _check_lengths(recipe, network)
    return record_run(recipe, network, kept=kept, place=place, budget=budget, progress=progress)


def edit(
    source: str | Recording,
    *targets: str,
    model: Model | str = "toybox",
    kind: Kind = "auto",
    cross: Span | Mapping[str, Span] = 0.8,
    self_attention: Span = 0.4,
    self_grid: int | None = None,
    joint: Span = 0.2,
    blocks: tuple[str, ...] | None = None,
    weights: Mapping[str, Number] | None = None,
    blend: Sequence[str] | str = (),
    subtract: Sequence[str] | str = (),
    threshold: Number = 0.3,
    blend_start: Number = 0.2,
    mask: Sequence[Sequence[float]] | None = None,
    combine: Literal["intersection", "union"] = "intersection",
    shared_start: Number | None = None,
    controls: Sequence[Control] | None = None,
    seed: int | None = None,
    images: int | None = None,
    steps: int | None = None,
    guidance: Number | None = None,
    size: tuple[int, int] | None = None,
    negative: str | None = None,
    truncate: bool = False,
    compare: bool = False,
    reference_compat: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Make the picture of `source` and, from the same noise, that of each target, changed only where the words differ.

    Without targets the source's own words are re-weighted. `cross` and `self_attention`: share of the steps in which
    the source's maps are used; `joint`: the same in networks of joint attention, in the layers that `blocks` names
    (all). `weights`: factors on words of the targets. `blend`: words in whose region alone the picture may change;
    `mask` adds a drawn region ([height, width] of zeros and ones), `combine` says how. `shared_start`: share of the
    steps in which the targets' latents are the source's. `controls` replaces everything these build. `steps` and
    `guidance` are those that suit the model, unless given. `truncate` allows prompts longer than the model reads.
    `compare` also makes the targets without control.
    """
    network = load_cached(model) if isinstance(model, str) else model
    prompt = source.prompt if isinstance(source, Recording) else source
    targets = targets or ((prompt,) if weights else ())
    if not targets:
        raise NoEffect("An edit needs a target prompt, or weights for words of the source. Received neither.")
    if isinstance(source, Recording):
        given = {"seed": seed, "images": images, "steps": steps, "guidance": guidance, "size": size,
                 "negative": negative}  # fmt: skip
        recipe = _on_recording(source, tuple(targets), network, given, truncate)
    else:
        steps, guidance = settings(network, steps, guidance)
        recipe = Recipe(
            source, tuple(targets), (), seed or 0, 1 if images is None else images, steps, guidance, size,
            negative or "", network.name, truncate, network.scheduler,
        )  # fmt: skip
    recipe.check()
    _check_lengths(recipe, network)
    if controls is None:
        controls = build_controls(
            network,
            recipe,
            kind,
            cross,
            self_attention,
            self_grid,
            joint,
            blocks,
            weights or {},
            blend,
            subtract,
            threshold,
            blend_start,
            mask,
            combine,
            shared_start,
            reference_compat,
        )
    recording = source if isinstance(source, Recording) else None
    recipe = replace(recipe, controls=tuple(controls))
    return run(recipe, network, compare=compare, recording=recording, progress=progress)


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


def generate(
    prompt: str,
    *,
    model: Model | str = "toybox",
    seed: int = 0,
    images: int = 1,
    steps: int | None = None,
    guidance: Number | None = None,
    size: tuple[int, int] | None = None,
    negative: str = "",
    truncate: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Make a picture from a prompt, without any control."""
    network = load_cached(model) if isinstance(model, str) else model
    steps, guidance = settings(network, steps, guidance)
    recipe = Recipe(
        prompt, (), (), seed, images, steps, guidance, size, negative, network.name, truncate, network.scheduler
    )
    return run(recipe, network, progress=progress)


def settings(model: Model, steps: int | None, guidance: Number | None) -> tuple[int, Number]:
    """Steps and guidance: those given, else those that suit the model."""
    usual = model.defaults
    return usual[0] if steps is None else steps, usual[1] if guidance is None else guidance


def run(
    recipe: Recipe,
    model: Model,
    *,
    compare: bool = False,
    recording: Recording | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a recipe; a `recording` of its source saves the source's rows."""
    recipe.check()
    _check_lengths(recipe, model)
    recording = recording or base_of(recipe, model, progress)
    noise = noise_for(model, recipe.seed, recipe.images, recipe.size)
    track = None if recording is None else recording.track
    made = _sample(model, recipe.prompts, noise, recipe, recipe.controls, progress, track)
    plain: np.ndarray | None = None
    if compare and recipe.targets:
        plain = _sample(model, recipe.targets, noise, recipe, (), progress).pictures
    report = effect_report(recipe, made, plain)
    return Result(recipe, made, plain, report, model.fingerprint(), latent_grid(model, recipe.size))


def _check_lengths(recipe: Recipe, model: Model) -> None:
    """Raise on words that the model would not read, unless the recipe allows them."""
    for number, prompt in enumerate(recipe.prompts, 1):
        words = model.words(prompt)
        if words.truncated and not recipe.truncate:
            raise PromptTooLong(
                f"Prompt {number} is longer than the {words.limit} tokens that the model reads: "
                f"it would not see {words.truncated[0].text!r} and what follows. "
                "Shorten the prompt, or allow the cut with truncate=True (--truncate)."
            )


def _sample(
    model: Model,
    prompts: Sequence[str],
    noise: Tensor,
    recipe: Recipe,
    controls: Sequence[Control],
    progress: Progress | None,
    source: Track | None = None,
) -> Sample:
    return sample(
        model,
        prompts,
        noise=noise,
        steps=recipe.steps,
        guidance=recipe.guidance,
        controls=controls,
        negative=recipe.negative,
        seed=recipe.seed,
        source=source,
        progress=progress,
    )

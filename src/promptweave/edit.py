"""Edit a picture by changing its prompt: the library's main sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from promptweave.core.control import Control, NoEffect
from promptweave.methods import LocalBlend, Refine, Replace, Reweight, SharedStart
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.recipe import Recipe
from promptweave.report import effect_report
from promptweave.result import Result
from promptweave.sampling.loop import Progress, Sample, latent_grid, noise_for, sample
from promptweave.words import suggest

Kind = Literal["auto", "replace", "refine"]
Number = int | float
Span = Number | tuple[Number, Number]


class PromptTooLong(ValueError):
    """A prompt with words beyond the model's length."""


def edit(
    source: str,
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
    seed: int = 0,
    images: int = 1,
    steps: int | None = None,
    guidance: Number | None = None,
    size: tuple[int, int] | None = None,
    negative: str = "",
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
    targets = targets or ((source,) if weights else ())
    if not targets:
        raise NoEffect("An edit needs a target prompt, or weights for words of the source. Received neither.")
    steps, guidance = settings(network, steps, guidance)
    recipe = Recipe(
        source, tuple(targets), (), seed, images, steps, guidance, size, negative, network.name, truncate,
        network.scheduler,
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
    return run(replace(recipe, controls=tuple(controls)), network, compare=compare, progress=progress)


def build_controls(
    model: Model,
    recipe: Recipe,
    kind: Kind,
    cross: Any,
    self_attention: Any,
    self_grid: int | None,
    joint: Span,
    blocks: tuple[str, ...] | None,
    weights: Mapping[str, Number],
    blend: Sequence[str] | str,
    subtract: Sequence[str] | str,
    threshold: Number,
    blend_start: Number,
    mask: Any,
    combine: Literal["intersection", "union"],
    shared_start: Number | None,
    reference_compat: bool,
) -> list[Control]:
    """The controls of an edit: injection for each target, then weights, then the local blend."""
    words = [model.words(prompt) for prompt in recipe.prompts]
    groups: dict[type[Replace] | type[Refine], list[int]] = {}
    for row, target in enumerate(words[1:], 1):
        found = suggest(words[0], target)
        if found == "same" and not weights:
            raise NoEffect(
                f"Target {row} says the same as the source, {recipe.source!r}. Change a word or give a weight."
            )
        group = Refine if kind == "refine" or (kind == "auto" and found == "refine") else Replace
        groups.setdefault(group, []).append(row)
    controls: list[Control] = []
    for group, rows in groups.items():
        chosen = None if len(groups) == 1 else tuple(rows)
        controls.append(group(cross, self_attention, self_grid, chosen, reference_compat, joint, blocks))
    if weights:
        controls.append(Reweight(dict(weights)))
    if shared_start is not None:
        controls.append(SharedStart(shared_start))
    if blend or mask is not None:
        names, without = ((w,) if isinstance(w, str) else tuple(w) for w in (blend, subtract))
        drawn = None if mask is None else tuple(tuple(float(v) for v in row) for row in mask)
        controls.append(
            LocalBlend(
                names,
                without,
                threshold,
                start=blend_start,
                mask=drawn,
                combine=combine,
                reference_compat=reference_compat,
            )
        )
    return controls


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


def run(recipe: Recipe, model: Model, *, compare: bool = False, progress: Progress | None = None) -> Result:
    """Run a recipe."""
    recipe.check()
    _check_lengths(recipe, model)
    noise = noise_for(model, recipe.seed, recipe.images, recipe.size)
    made = _sample(model, recipe.prompts, noise, recipe, recipe.controls, progress)
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
        progress=progress,
    )

"""Edit a picture by changing its prompt: the library's main sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from promptweave.core.clock import Number, Span
from promptweave.core.control import Control
from promptweave.editing.options import Kind, Options
from promptweave.editing.picture import Given, Picture
from promptweave.editing.plan import PromptTooLong as PromptTooLong
from promptweave.editing.plan import check_lengths, plan, recipe_for
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording, base_of, record_run
from promptweave.editing.recorders import edit_watch
from promptweave.editing.report import effect_report
from promptweave.editing.result import Result
from promptweave.editing.start import Start, start
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.sampling.loop import Job, Progress, latent_grid, sample_jobs
from promptweave.sampling.recording import Kept, Place


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
    image: Given | Picture | None = None,
    inversion: str = "direct",
    progress: Progress | None = None,
) -> Recording:
    """Make a picture and keep what edits of it read, so that an edit needs the target's rows only.

    `prompt` may be an edit's result: its target `row` then becomes a source, and the settings are those of its run.

    `cross`, `self_attention`, `joint`: the windows in which the source's queries and keys are kept; edits may use any
    windows inside. `self_grid`: pixels of the largest self-attention map. `maps`: what word maps and local blends read.
    `values`: also the values. `place`: "cpu", "device" or "disk". `budget`: bytes above which TooLarge is raised before
    anything is computed. `image`: the picture that the prompt describes, instead of one that is made (see `edit`).
    """
    network = load_cached(model) if isinstance(model, str) else model
    kept = Kept(cross, self_attention, joint, self_grid, maps, values)
    if isinstance(prompt, Result):
        base = base_of(prompt.recipe, network, progress)
        source = None if base is None else base.track
        return record_run(
            prompt.recipe, network, row=row, kept=kept, place=place, budget=budget, progress=progress, source=source
        )
    recipe = recipe_for(network, prompt, (), seed, images, steps, guidance, size, negative, truncate, image, inversion)
    recipe.check()
    check_lengths(recipe, network)
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
    strength: Number | None = None,
    source_guidance: Number | None = None,
    target_guidance: Number | None = None,
    structure: Number = 0.3,
    controls: Sequence[Control] | None = None,
    seed: int | None = None,
    images: int | None = None,
    steps: int | None = None,
    guidance: Number | None = None,
    size: tuple[int, int] | None = None,
    negative: str | None = None,
    truncate: bool = False,
    image: Given | Picture | None = None,
    inversion: str | None = None,
    compare: bool = False,
    maps: bool = False,
    reference_compat: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Make the picture of `source` and, from the same noise, that of each target, changed only where the words differ.

    Without targets the source's own words are re-weighted. `cross` and `self_attention`: share of the steps in which
    the source's maps are used; `joint`: the same in networks of joint attention, in the layers that `blocks` names
    (all). `weights`: factors on words of the targets. `blend`: words in whose region alone the picture may change;
    `mask` adds a drawn region ([height, width] of zeros and ones), `combine` says how. `shared_start`: share of the
    steps in which the targets' latents are the source's. In flow models (SD3, FLUX) `kind` may be "flow": `FlowEdit`
    with its `strength`, `source_guidance` and `target_guidance`; or "consist": `Consist`, which keeps all but what the
    words in `blend` name in the source, and of that its shape for the share `structure` of the steps. `controls`
    replaces everything these build. `steps` and `guidance` are those that suit the model, unless given. `truncate`
    allows prompts longer than the model reads. `image`: a picture (file, Pillow image or uint8 [height, width, 3]) that
    `source` describes: it is walked back to noise (DDIM inversion, for flow models Euler's) and edited. `inversion`:
    "direct", the source is kept on that way; "ddim", it is made again from the noise; "regularised", as "direct" with
    pix2pix-zero's correction of the noise. `compare` also makes the targets without control. `maps` records what
    the words of all prompts look at (`EditMaps`).
    """
    network = load_cached(model) if isinstance(model, str) else model
    options = Options(
        kind, cross, self_attention, self_grid, joint, blocks, weights, blend, subtract, threshold, blend_start, mask,
        combine, shared_start, strength, source_guidance, target_guidance, structure, controls, reference_compat,
    )  # fmt: skip
    recipe = plan(
        source, targets, network, options, seed=seed, images=images, steps=steps, guidance=guidance, size=size,
        negative=negative, truncate=truncate, image=image, inversion=inversion,
    )  # fmt: skip
    recording = source if isinstance(source, Recording) else None
    watch = edit_watch(recipe, network) if maps else ()
    return run(recipe, network, compare=compare, recording=recording, watch=watch, progress=progress)


def generate(
    prompt: str,
    *,
    model: Model | str = "toybox",
    controls: Sequence[Control] = (),
    seed: int = 0,
    images: int = 1,
    steps: int | None = None,
    guidance: Number | None = None,
    size: tuple[int, int] | None = None,
    negative: str = "",
    truncate: bool = False,
    compare: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Make a picture from a prompt, under `controls` that steer a single prompt, such as `AttendAndExcite`.

    `compare` also makes it without them.
    """
    network = load_cached(model) if isinstance(model, str) else model
    recipe = recipe_for(network, prompt, (), seed, images, steps, guidance, size, negative, truncate)
    return run(replace(recipe, controls=tuple(controls)), network, compare=compare, progress=progress)


def run(
    recipe: Recipe,
    model: Model,
    *,
    compare: bool = False,
    recording: Recording | None = None,
    watch: Sequence[Control] = (),
    progress: Progress | None = None,
) -> Result:
    """Run a recipe; a `recording` of its source saves the source's rows. `watch`: recorders to run beside it."""
    return run_many([recipe], model, compare=compare, recordings=[recording], watch=watch, progress=progress)[0]


def run_many(
    recipes: Sequence[Recipe],
    model: Model,
    *,
    compare: bool = False,
    recordings: Sequence[Recording | None] | None = None,
    watch: Sequence[Control] = (),
    progress: Progress | None = None,
) -> list[Result]:
    """Run independent recipes in shared forward passes, each as if it were alone."""
    jobs: list[Job] = []
    starts: list[Start] = []
    for recipe, given in zip(recipes, recordings or [None] * len(recipes), strict=True):
        recipe.check()
        check_lengths(recipe, model)
        recording = given or base_of(recipe, model, progress)
        source = None if recording is None else recording.track
        begin = start(recipe, model, source, progress)
        starts.append(begin)
        jobs.append(
            Job(
                recipe.prompts, begin.noise, recipe.steps, recipe.guidance, (*begin.controls, *recipe.controls, *watch),
                recipe.negative, recipe.seed, source, progress, begin.first_pass,
            )
        )  # fmt: skip
        if compare and (recipe.targets or recipe.controls):
            prompts = recipe.targets or recipe.prompts
            jobs.append(Job(prompts, begin.noise, recipe.steps, recipe.guidance, (), recipe.negative, recipe.seed))
    made = iter(sample_jobs(model, jobs))
    results: list[Result] = []
    for recipe, begin in zip(recipes, starts, strict=True):
        one = next(made)
        one = replace(one, hooks=one.hooks[len(begin.controls) :])
        plain = next(made).pictures if compare and (recipe.targets or recipe.controls) else None
        report = effect_report(recipe, one, plain)
        results.append(Result(recipe, one, plain, report, model.fingerprint(), latent_grid(model, recipe.size)))
    return results

"""Edit an image by changing its prompt: `edit`, `generate` and `record`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

from promptweave.core.clock import Span
from promptweave.core.control import Control
from promptweave.core.typed import checked
from promptweave.editing.computed import Computed
from promptweave.editing.inverted_file import InvertedImage
from promptweave.editing.masks import with_controls
from promptweave.editing.options import EditOptions, PromptToPrompt
from promptweave.editing.own_model import model_of
from promptweave.editing.picture import Given, Picture
from promptweave.editing.plan import PromptTooLong as PromptTooLong
from promptweave.editing.plan import check_lengths, check_options, listed_controls, plan, recipe_for
from promptweave.editing.put_back import in_original
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording, base_of, record_run
from promptweave.editing.recorders import edit_watch
from promptweave.editing.report import effect_report
from promptweave.editing.result import Result
from promptweave.editing.settings import RunOptions, Settings, split
from promptweave.editing.start import Start, reproduced, start
from promptweave.editing.values import read_options
from promptweave.editing.who_reads import Unread
from promptweave.inversion import Inversion
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.sampling.beside import NEVER, Beside
from promptweave.sampling.loop import Job, Progress, Sample, latent_grid, sample_jobs
from promptweave.sampling.recording import Kept, Place


class RecordOptions(RunOptions, total=False):
    """The fields of `Kept` and of `Settings` as keyword arguments."""

    cross: Span
    self_attention: Span
    joint: Span
    self_grid: int | None
    maps: bool
    values: bool


@checked
def record(
    prompt: str | Result,
    *,
    row: int | None = None,
    model: Model | str | None = None,
    place: Place = "cpu",
    budget: int | None = None,
    image: Given | Picture | None = None,
    inversion: str | Inversion | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **options: Unpack[RecordOptions],
) -> Recording:
    """Generate an image and keep the attention that edits of it read, so that an edit computes the target's rows only.

    `prompt` may be the result of an edit: the target in its row `row` (default 1) becomes the source, with the
    model and the settings of that run. `place`: where the recording is kept, "cpu", "device" or "disk". `budget`: size
    in bytes above which TooLarge is raised before anything is computed. `image` and `inversion`: an image that the
    prompt describes, instead of a generated one (see `edit`).

    Options: the fields of `Kept`, such as the windows in which the source's queries and keys are kept (edits may use
    any window inside them), and those of `Settings`, as keywords or as `settings`. Raises Unread for options that
    nothing reads and PromptTooLong for prompts that the model would cut.
    """
    network = model_of(prompt.recipe if isinstance(prompt, Result) else None, model)
    windows, run_options = split("record", options, Kept, Settings)
    kept = Kept(**read_options(Kept, windows))
    chosen = (settings or Settings()).with_(run_options)
    if isinstance(prompt, Result):
        flags = {name: getattr(chosen, name) or None for name in ("truncate", "keep_original")}
        given = {**vars(chosen), **flags, "image": image, "inversion": inversion}
        for name, value in given.items():
            if value is not None:
                raise Unread(f"Nothing reads {name} here: a result has the settings of its own run. Leave {name} out.")
        return record_run(
            prompt.recipe, network, row=1 if row is None else row, kept=kept, place=place, budget=budget,
            progress=progress, source=base_of(prompt.recipe, network, progress),
        )  # fmt: skip
    if row is not None:
        raise Unread("row selects a row of a result, but a prompt was given. Leave row out, or record a result.")
    recipe = recipe_for(network, prompt, (), chosen, image=image, inversion=inversion)
    recipe.check()
    check_lengths(recipe, network)
    return record_run(recipe, network, kept=kept, place=place, budget=budget, progress=progress)


@checked
def edit(
    source: str | Recording | InvertedImage,
    *targets: str,
    model: Model | str | None = None,
    controls: Sequence[Control] | None = None,
    image: Given | Picture | None = None,
    inversion: str | Inversion | None = None,
    settings: Settings | None = None,
    compare: bool = False,
    maps: bool = False,
    progress: Progress | None = None,
    **options: Unpack[EditOptions],
) -> Result:
    """Generate `source` and, from the same noise, each target, changed only where the words differ.

    Prompt-to-Prompt (Hertz et al. 2022, arXiv 2208.01626), unless `controls` are given. Without targets, the words of
    the source are re-weighted (`weights`). `source` may be a `Recording`, or an `InvertedImage`,
    which know their `model`; for a prompt it is toybox, unless another is given.

    Options: the fields of `PromptToPrompt`, which documents each (`kind`, `cross`, `self_attention`, `weights`,
    `blend`, ...), and of `Settings` (`seed`, `steps`, `guidance`, ...), as keywords or as `settings`. `controls`
    replace those that the options request. Raises Unread for an option that nothing reads, NoEffect for a control that
    could not act, PromptTooLong for a prompt that the model would cut, WordNotFound for a word that is in no prompt.

    `image`: a path, a Pillow image, an array or a tensor (`pixels.open_image`) that `source` describes. The result
    shows its middle, unless `fit` says otherwise or `size="auto"` keeps its shape; masks go with it. It is inverted to
    the start of a run and edited. `keep_original=True` puts the edit back into the original at full size (see
    `put_back`): the pixels that it did not change stay as they are. `inversion`: an `inversion.Inversion`, or its name
    and options, "null-text:rounds=5"; by default "direct". `compare` also generates the targets without controls.
    `maps` records the word maps of all prompts (`edit_maps`).
    """
    network = model_of(None if isinstance(source, str) else source.recipe, model)
    asked, run_options = split("edit", options, PromptToPrompt, Settings)
    recipe = plan(
        source, targets, network, asked, (settings or Settings()).with_(run_options), controls=controls, image=image,
        inversion=inversion,
    )  # fmt: skip
    recording = None if isinstance(source, str) else source
    watch = edit_watch(recipe, network) if maps else ()
    return run(recipe, network, compare=compare, recording=recording, watch=watch, progress=progress)


@checked
def generate(
    prompt: str,
    *,
    model: Model | str = "toybox",
    controls: Sequence[Control] = (),
    settings: Settings | None = None,
    compare: bool = False,
    maps: bool = False,
    progress: Progress | None = None,
    **options: Unpack[RunOptions],
) -> Result:
    """Generate an image from a prompt, under `controls` that steer a single prompt, such as `AttendAndExcite`.

    The options are the fields of `Settings`, as keywords or as `settings`. `compare` also generates the image without
    the controls. `maps` records the word maps. Raises PromptTooLong and NoEffect as `edit` does.
    """
    network = load_cached(model) if isinstance(model, str) else model
    chosen = (settings or Settings()).with_(*split("generate", options, Settings))
    recipe = with_controls(recipe_for(network, prompt, (), chosen), listed_controls(controls), network)
    check_options(recipe.controls)
    recipe.check()
    check_lengths(recipe, network)
    watch = edit_watch(recipe, network) if maps else ()
    return run(recipe, network, compare=compare, watch=watch, progress=progress)


@checked
def run(
    recipe: Recipe,
    model: Model,
    *,
    compare: bool = False,
    recording: Recording | InvertedImage | None = None,
    watch: Sequence[Control] = (),
    compared: bool = False,
    progress: Progress | None = None,
    again: Computed | None = None,
) -> Result:
    """Run a recipe; a `recording` of its source replaces the source's rows. `watch`: recorders that run along.

    `compared`: the run is one that others are compared with; its prompts may then have no say (guidance 0). `again`:
    how it was computed before, to compute it in the same passes.
    """
    ready = prepared(
        recipe, model, compare=compare, recording=recording, watch=watch, compared=compared, progress=progress,
        again=again,
    )  # fmt: skip
    return ready.result(model, sample_jobs(model, ready.jobs))


@checked
def run_many(
    recipes: Sequence[Recipe],
    model: Model,
    *,
    compare: bool = False,
    recordings: Sequence[Recording | InvertedImage | None] | None = None,
    watch: Sequence[Control] = (),
    compared: bool = False,
    progress: Progress | None = None,
) -> list[Result]:
    """Run independent recipes in shared forward passes; each result is what it would be alone."""
    ready = [
        prepared(
            recipe, model, compare=compare, recording=given, watch=watch, compared=compared, progress=progress
        )
        for recipe, given in zip(recipes, recordings or [None] * len(recipes), strict=True)
    ]  # fmt: skip
    made = iter(sample_jobs(model, [job for one in ready for job in one.jobs]))
    return [one.result(model, [next(made) for _ in one.jobs]) for one in ready]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recipe whose source is known: its job, then that of the targets without controls if they are compared."""

    recipe: Recipe
    begin: Start
    jobs: tuple[Job, ...]
    computed: Computed

    def result(self, model: Model, samples: Sequence[Sample]) -> Result:
        """The result of the jobs' samples."""
        recipe, begin, one = self.recipe, self.begin, samples[0]
        one = replace(one, hooks=one.hooks[len(begin.controls) :])
        plain = samples[1].pictures[-_compared(recipe) :] if len(samples) > 1 else None
        unpinned = begin.inverted is not None and not begin.inverted.pinned
        again = reproduced(model, recipe) if unpinned or (recipe.base and recipe.keep_original) else None
        kept = in_original(recipe, one, again) if recipe.keep_original else ()
        report = effect_report(recipe, one, plain, begin.inverted, reproduced=again, kept=kept) | model.kernels()
        grid = latent_grid(model, recipe.size)
        computed = replace(self.computed, beside=one.beside, plain=samples[1].beside if len(samples) > 1 else None)
        return Result(recipe, one, plain, report, model.fingerprint(), grid, begin.inverted, kept, computed)


def prepared(
    recipe: Recipe,
    model: Model,
    *,
    compare: bool = False,
    recording: Recording | InvertedImage | None = None,
    watch: Sequence[Control] = (),
    compared: bool = False,
    progress: Progress | None = None,
    again: Computed | None = None,
) -> Prepared:
    """Check a recipe and find the start of its run: of an input image by inversion, of an edit by the run before it.

    `again`: how it was computed before, to compute it in the same passes.
    """
    again = again or Computed()
    recipe.check()
    check_lengths(recipe, model)
    given = recording or base_of(recipe, model, progress)
    source = None if given is None else given.track
    known = None if given is None else given.inverted
    begin = start(recipe, model, source, progress, inverted=known, watched=bool(watch))
    job = Job(
        recipe.prompts, begin.noise, recipe.steps, recipe.guidance, (*begin.controls, *recipe.controls, *watch),
        recipe.negative, recipe.seed, source or begin.held, progress, begin.first_pass, begin.inverted,
        compared, recipe.truncate, again.beside,
    )  # fmt: skip
    beside = (Beside(NEVER),) if again.plain == () else again.plain or ()  # what was computed by itself is so now
    plain = (replace(_uncontrolled(recipe, begin), beside=beside),) if compare and _compared(recipe) else ()
    computed = Computed(watched=bool(watch), recording=recording.computed if isinstance(recording, Recording) else None)
    return Prepared(recipe, begin, (job, *plain), computed)


def _compared(recipe: Recipe) -> int:
    """How many images a comparison without controls shows."""
    return len(recipe.targets) or (1 if recipe.controls else 0)


def _uncontrolled(recipe: Recipe, begin: Start) -> Job:
    """The run without the recipe's controls; the inversion of an input image has its own."""
    prompts, acting = recipe.targets or recipe.prompts, () if begin.inverted is None else begin.inverted.further
    if acting:  # row 0 is the source to them
        prompts = recipe.prompts
    return Job(
        prompts, begin.noise, recipe.steps, recipe.guidance, acting, recipe.negative, recipe.seed,
        inverted=begin.inverted, compared=True, truncate=recipe.truncate,
    )  # fmt: skip

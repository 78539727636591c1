"""Sampling: images of several prompts from the same noise, under controls."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.control import Control, FirstPass, Hooks, Run, Text
from promptweave.core.finite import finite
from promptweave.core.precision import precision
from promptweave.core.record_maps import RecordedMaps, RecordMaps
from promptweave.core.shown import brief
from promptweave.core.site import Sites
from promptweave.core.typed import checked
from promptweave.models.base import Model, Solver
from promptweave.sampling.beside import Beside, Company
from promptweave.sampling.guidance import check_heard, effective
from promptweave.sampling.noise_levels import check_channels, masked, noising
from promptweave.sampling.phases import check_phases
from promptweave.sampling.solver import Ddim, visited
from promptweave.sampling.starting_noise import check_pixels as check_pixels
from promptweave.sampling.starting_noise import check_seed as check_seed
from promptweave.sampling.starting_noise import latent_grid as latent_grid
from promptweave.sampling.starting_noise import noise_for as noise_for
from promptweave.sampling.trace import not_finite
from promptweave.sampling.walk import Progress, Request, Source, drive, walk

FLOW = "flow-euler"  # the scheduler of flow models


@dataclass(frozen=True, eq=False)
class Sample:
    """The result of a run: `latents` [prompts, images, channels, h, w] and `pictures`, uint8 [prompts, images, height,
    width, 3]. `run` is what the controls knew of it, `hooks` their runs, in order; `beside`: the other runs that shared
    its forward passes."""

    latents: Tensor
    pictures: np.ndarray
    run: Run
    hooks: tuple[Hooks, ...]
    beside: tuple[Beside, ...] = ()

    def __repr__(self) -> str:
        prompts, images, height, width = self.pictures.shape[:4]
        return brief(self, f"{prompts} prompts", f"{images} images each", f"{width}x{height} pixels")

    @property
    def reports(self) -> tuple[dict[str, Any], ...]:
        """The report of each control, in order."""
        return tuple(hooks.report() for hooks in self.hooks)


@runtime_checkable
class Solving(Protocol):
    """An inversion whose runs may need a solver of their own."""

    def solver(self, model: Model, prompts: int) -> Solver | None:
        """The solver for so many computed prompts; None: the model's."""
        ...


@dataclass(frozen=True, eq=False)
class Job:
    """A run to do: its prompts (row 0 is the source), its starting noise and its settings."""

    prompts: Sequence[str]
    noise: Float[Tensor, "images channels h w"]
    steps: int = 50
    guidance: int | float = 7.5
    controls: Sequence[Control] = ()
    negative: str = ""
    seed: int = 0
    source: Source | None = None
    progress: Progress | None = None
    first_pass: FirstPass | None = None  # of a source that is already known
    inverted: Solving | None = None  # what brings a solver of its own
    compared: bool = False  # made to compare others with: its prompts may go unheard
    truncate: bool = False  # whether texts that are too long for the model are cut
    beside: tuple[Beside, ...] = ()  # rows of other runs that this one is to be computed beside

    def bind(self, model: Model, first_pass: FirstPass | None = None) -> tuple[Run, tuple[Hooks, ...]]:
        """Bind the controls to a run; everything that can be checked before the first step is checked here."""
        noise, guidance = self.noise, self.guidance
        model.check()
        if not self.prompts:
            raise ValueError("A run needs at least one prompt. Received none.")
        if noise.ndim != 4 or noise.shape[1] != model.channels or not noise.numel():
            raise ValueError(
                f"noise must be [images, {model.channels}, h, w] with at least one image for this model. "
                f"Received {tuple(noise.shape)}. Draw it with noise_for(model, seed)."
            )
        if isinstance(guidance, bool) or not math.isfinite(guidance):
            raise ValueError(
                f"guidance must be a finite number (7.5 is usual, 1 switches it off). Received {guidance!r}."
            )
        check_seed(self.seed)
        guidance = effective(model, guidance)
        grid = (noise.shape[-2], noise.shape[-1])
        words = tuple(model.words(prompt) for prompt in self.prompts)
        solver = self.solver(model)
        if not self.truncate:
            for number, prompt in enumerate(self.prompts, 1):
                model.check_length(prompt, f"Prompt {number}", len(solver.steps))
            model.check_length(self.negative, "The negative prompt", len(solver.steps))
        for prompt in self.prompts:
            check_phases(model, prompt, len(solver.steps), steered=bool(self.controls))
        check_phases(model, self.negative, len(solver.steps), steered=False)
        run = Run(
            tuple(self.prompts),
            words,
            len(solver.steps),
            model.sites(grid),
            grid,
            model.map_grid(grid),
            model.map_sites(grid),
            len(noise),
            guidance,
            words[0].limit,
            model.device,
            model.dtype,
            lambda texts: model.encode(list(texts), [""] * len(texts), truncate=self.truncate),
            model.words,
            model.schedule,
            0 if self.source is None else 1,
            self.seed,
            model.scheduler == FLOW,
            model.guided,
            model.blocks(),
            first_pass,
            sum(len(solver.calls(step)) for step in solver.steps),
            any(control.for_source() is not None for control in self.controls),
            partial(noising, solver, noise),
            masked(model),
        )
        hooks = tuple(control.bind(run) for control in self.controls)
        if not self.compared:
            check_heard(model, self.prompts, guidance, hooks)
        return run, hooks

    def texts(self, model: Model, steps: int) -> tuple[Text, ...]:
        """The encoded prompts at each of the steps; one and the same object while they do not change."""
        rows = list(zip(*(model.phases(text, steps) for text in (*self.prompts, self.negative)), strict=True))
        made = {
            row: model.encode(row[:-1], row[-1:] * len(self.prompts), truncate=self.truncate)
            for row in dict.fromkeys(rows)
        }
        return tuple(made[row] for row in rows)

    def solver(self, model: Model) -> Solver:
        """A fresh solver. Raises ValueError if several controls decide about its times."""
        visits = None if model.scheduler == FLOW else visited(self.controls, model.schedule, self.steps, self.seed)
        if visits is not None:
            return visits
        computed = len(self.prompts) - (0 if self.source is None else 1)
        own = None if self.inverted is None else self.inverted.solver(model, computed)
        if own is not None:
            return own
        made = model.solver(self.steps, tuple(self.noise.shape), computed, self.seed)
        return made or Ddim(model.schedule(), self.steps)


@checked
def sample(
    model: Model,
    prompts: Sequence[str],
    *,
    noise: Float[Tensor, "images channels h w"],
    steps: int | None = None,
    guidance: int | float | None = None,
    controls: Sequence[Control] = (),
    negative: str = "",
    seed: int = 0,
    source: Source | None = None,
    inverted: Solving | None = None,
    progress: Progress | None = None,
    truncate: bool = False,
    beside: tuple[Beside, ...] = (),
) -> Sample:
    """Generate an image for each prompt and each noise. For controls, row 0 is the source and the others are targets.

    `noise` is shared by all prompts. `steps` and `guidance` default to those that suit the model (`model.defaults`);
    `negative` is the negative prompt. `seed`: of the noise that some solvers add on the way. A recorded `source`
    takes the place of row 0, which is then not computed. `inverted`: an inversion whose runs may need a solver of
    their own; its controls are given with the others. `progress` is called after every step with the step and the
    latents. `truncate`: cut texts that are too long for the model, instead of raising PromptTooLong. `beside`: rows
    of other runs to compute it beside (`sampling.beside`). Raises ValueError if a parameter or control does not fit the
    model, and NoEffect for a guidance of 0 under which no prompt has a say, before anything is computed; NotFinite if
    the network or a control gives no numbers.
    """
    usual = model.defaults
    steps, guidance = usual[0] if steps is None else steps, usual[1] if guidance is None else guidance
    job = Job(
        prompts, noise, steps, guidance, controls, negative, seed, source, progress, inverted=inverted,
        truncate=truncate, beside=beside,
    )  # fmt: skip
    return sample_jobs(model, [job])[0]


Bound = tuple[Run, tuple[Hooks, ...], FirstPass | None]


@torch.no_grad()
def sample_jobs(model: Model, jobs: Sequence[Job]) -> list[Sample]:
    """Do independent runs, each with its own prompts, controls and steps, in shared forward passes."""
    bound = bind_jobs(model, jobs)
    runs = [begun(model, job, hooks) for job, (_, hooks, _) in zip(jobs, bound, strict=True)]
    company = [Company(job.beside) for job in jobs]
    latents = drive(model, runs, company)
    return [
        sampled(model, job, made, z, others.kept)
        for job, made, z, others in zip(jobs, bound, latents, company, strict=True)
    ]


def bind_jobs(model: Model, jobs: Sequence[Job]) -> list[Bound]:
    """Bind the controls of all jobs, and do the first passes that they need."""
    bound = [job.bind(model) for job in jobs]
    for _, hooks in bound:
        check_channels(model, hooks)
    needed = [any(control.needs & {"latents", "maps"} for control in job.controls) for job in jobs]
    passes = [
        (job.first_pass or _first_pass(model, job, run)) if need else None
        for job, need, (run, _) in zip(jobs, needed, bound, strict=True)
    ]
    bound = [job.bind(model, first) if first else made for job, first, made in zip(jobs, passes, bound, strict=True)]
    return [(run, hooks, first) for (run, hooks), first in zip(bound, passes, strict=True)]


def begun(model: Model, job: Job, hooks: Sequence[Hooks]) -> Generator[Request, Tensor, Tensor]:
    """The run of a job whose controls are bound, before its first forward pass."""
    return _walk(model, job, hooks, job.progress)


def sampled(model: Model, job: Job, bound: Bound, z: Tensor, beside: tuple[Beside, ...] = ()) -> Sample:
    """The sample of a run that has ended with the latents `z`. Raises NotFinite for latents that are no numbers."""
    run, hooks, first = bound
    if not finite(z):
        run, hooks = job.bind(model, first)
        steps = range(max((hook.first_step for hook in hooks), default=0), run.steps)
        named = {type(control).__name__: hook for control, hook in zip(job.controls, hooks, strict=True)}
        raise not_finite(model, job.prompts, z, partial(_walk, model, job, hooks), steps, named)
    return Sample(z, _pictures(model, z, job.source), run, hooks, beside)


def _walk(
    model: Model, job: Job, hooks: Sequence[Hooks], progress: Progress | None
) -> Generator[Request, Tensor, Tensor]:
    """The run of a job whose controls are bound."""
    solver = job.solver(model)
    texts = job.texts(model, len(solver.steps))
    z = job.noise.to(model.device, precision(job.noise.dtype, model.dtype))
    guidance = effective(model, job.guidance)
    return walk(model, solver, texts, z, guidance, hooks, source=job.source, progress=progress)


def _first_pass(model: Model, job: Job, run: Run) -> FirstPass:
    """Generate the source alone and record its word maps, kept by layer if controls want those of different layers."""
    if job.source is not None and not any("maps" in control.needs for control in job.controls):
        shown = torch.from_numpy(np.asarray(job.source.pictures)).to(precision(model.dtype)) / 255
        return FirstPass(job.source.latents(run.steps), picture=shown)
    kept = [found for control in job.controls if (found := control.for_source()) is not None]
    wanted = {control.first_pass_sites(run) for control in job.controls if "maps" in control.needs}
    names = tuple(site.name for site in run.sites if any(site in sites for sites in wanted))
    controls = [*kept, RecordMaps(Sites(names=names), by_site=len(wanted) > 1)]
    made = sample_jobs(model, [replace(job, prompts=job.prompts[:1], controls=controls, progress=None, beside=())])[0]
    seen = made.hooks[-1]
    assert isinstance(seen, RecordedMaps)
    return FirstPass(made.latents[0], seen.maps)


def _pictures(model: Model, z: Tensor, source: Source | None) -> np.ndarray:
    if source is None:
        return decode(model, z)
    return np.concatenate([source.pictures[None], decode(model, z[1:])])


def decode(model: Model, z: Tensor) -> np.ndarray:
    """Images of latents [prompts, images, ...], uint8 [prompts, images, height, width, 3]; decoded one at a time."""
    pictures = torch.cat([model.to_image(part) for part in z.flatten(0, 1).split(1)])
    return (pictures * 255).round().to(torch.uint8).unflatten(0, z.shape[:2]).numpy()

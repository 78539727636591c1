"""Runs that are advanced together, looked at on the way, and finished or left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Hooks
from promptweave.models.base import Model
from promptweave.sampling.beside import Company
from promptweave.sampling.loop import Job, Sample, begun, bind_jobs, sampled
from promptweave.sampling.walk import Progress, Request, answered


class Paused:
    """Independent runs of one model, in shared forward passes; each has the pixels that it would have alone.

    `rows`: rows of latents that the network computed so far, but for those of first passes. `steps`: those that each
    run has done.
    """

    @torch.no_grad()
    def __init__(self, model: Model, jobs: Sequence[Job]) -> None:
        self.model, self.rows = model, 0
        self.steps = [0] * len(jobs)
        self._jobs = [replace(job, progress=self._counting(at, job.progress)) for at, job in enumerate(jobs)]
        self._bound = bind_jobs(model, self._jobs)
        self._runs = [begun(model, job, bound[1]) for job, bound in zip(self._jobs, self._bound, strict=True)]
        self._waiting: dict[int, Request] = {number: next(run) for number, run in enumerate(self._runs)}
        self._ended: dict[int, Tensor] = {}
        self._company = [Company() for _ in jobs]

    def hooks(self, number: int) -> tuple[Hooks, ...]:
        """The hooks of a run's controls, in order."""
        return self._bound[number][1]

    @torch.no_grad()
    def until(self, share: int | float, numbers: Sequence[int] | None = None) -> None:
        """Advance runs (None: all) to the step at which `share` of their steps is done; 1: to their ends."""
        while behind := [n for n in self._waiting if (numbers is None or n in numbers) and self._behind(n, share)]:
            self.rows += sum(len(self._waiting[number].z) for number in behind)
            self._ended |= answered(self.model, self._runs, self._waiting, behind, self._company)

    def _behind(self, number: int, share: int | float) -> bool:
        return share >= 1 or self.steps[number] < round(share * self._bound[number][0].steps)

    @torch.no_grad()
    def finish(self, number: int) -> Sample:
        """The sample of a run, which is advanced to its end. Raises NotFinite."""
        self.until(1, [number])
        return sampled(
            self.model, self._jobs[number], self._bound[number], self._ended[number], self._company[number].kept
        )

    def _counting(self, number: int, progress: Progress | None) -> Progress:
        def after(step: Step, z: Tensor) -> None:
            self.steps[number] += 1
            if progress:
                progress(step, z)

        return after

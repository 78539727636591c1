"""A file of independent edits, run in shared forward passes; a stopped run resumes where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptweave.core.fields import options_of
from promptweave.editing.edit import run_many
from promptweave.editing.options import PromptToPrompt
from promptweave.editing.plan import bind, plan
from promptweave.editing.recipe import Recipe
from promptweave.editing.result import Result, check_output, read_record
from promptweave.editing.settings import Settings
from promptweave.editing.values import nearest, read_options, read_value
from promptweave.models.base import Model

OPTIONS, SETTINGS = ([listed.name for listed in options_of(kind)] for kind in (PromptToPrompt, Settings))
OTHERS: dict[str, Any] = {
    "source": str, "targets": Sequence[str] | str, "name": str, "image": str | None, "inversion": str | None
}  # fmt: skip


class BadJobs(ValueError):
    """Invalid jobs; the message lists all of them."""


@dataclass(frozen=True)
class JobLine:
    """A named recipe; `line` is its line number in the file."""

    name: str
    recipe: Recipe
    line: int


def read_jobs(path: Path | str, model: Model) -> list[JobLine]:
    """Read a file of jobs, one JSON object per line: `source`, `targets`, `name` and the options of `edit`.

    All lines are checked before anything runs. Raises BadJobs, which lists every invalid line.
    """
    jobs: list[JobLine] = []
    wrong: list[str] = []
    lines = [(n, line) for n, line in enumerate(Path(path).read_text().splitlines(), 1) if line.strip()]
    for number, line in lines:
        try:
            made = make_job(json.loads(line), model, number)
            taken = [job.line for job in jobs if job.name == made.name]
            if taken:
                raise ValueError(f"Names must be unique. Received {made.name!r}, which line {taken[0]} has too.")
            jobs.append(made)
        except (ValueError, TypeError) as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        raise BadJobs(f"{len(wrong)} of {len(lines)} jobs in {path} cannot be run:\n" + "\n".join(wrong))
    if not jobs:
        raise BadJobs(f"{path} holds no jobs. Write one JSON object per line, with source and targets.")
    return jobs


def make_job(values: Any, model: Model, number: int) -> JobLine:
    """A job from its JSON object."""
    if not isinstance(values, dict) or not isinstance(values.get("source"), str):
        raise ValueError('A job is a JSON object with a "source" and "targets".')
    known = [*OTHERS, *OPTIONS, *SETTINGS]
    for key in values:
        if key not in known:
            raise ValueError(f"A job has no key {key!r}. {nearest(key, known)}")
    given = {key: read_value(kind, values[key], key) for key, kind in OTHERS.items() if key in values}
    targets = given.get("targets", ())
    name = given.get("name", f"{number:04d}")
    if name in ("", ".", "..") or any(c in name for c in "/\\\0"):
        raise ValueError(f"A job's name is also the name of its folder. Received {name!r}. Leave out slashes.")
    options = {key: value for key, value in values.items() if key in OPTIONS and value is not None}
    settings = {key: value for key, value in values.items() if key in SETTINGS and value is not None}
    recipe = plan(
        given["source"], (targets,) if isinstance(targets, str) else targets, model,
        options, Settings(**read_options(Settings, settings)), image=given.get("image"),
        inversion=given.get("inversion"),
    )  # fmt: skip
    bind(recipe, model)
    return JobLine(name, recipe, number)


def rows_of(recipe: Recipe) -> int:
    """The number of images that a recipe makes."""
    return len(recipe.prompts) * recipe.images


def batches(jobs: Sequence[JobLine], rows: int) -> Iterator[list[JobLine]]:
    """The jobs in order, in batches of at most `rows` images (but at least one job)."""
    batch: list[JobLine] = []
    for job in jobs:
        if batch and sum(rows_of(other.recipe) for other in batch) + rows_of(job.recipe) > rows:
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def run_jobs(
    jobs: Sequence[JobLine],
    model: Model,
    folder: Path | str,
    *,
    rows: int = 8,
    force: bool = False,
    done: Callable[[JobLine, Result | None], None] | None = None,
) -> list[Path]:
    """Run jobs and save each to the subfolder with its name. `rows`: images per forward pass.

    `done(job, result)` is called after each job; `result` is None for a job that had been run before. A folder that
    holds a run of the same recipe is left alone, so that a stopped run can be resumed. One that holds another recipe
    raises FileExistsError before anything runs, unless `force` is given.
    """
    folder = Path(folder)
    waiting: list[JobLine] = []
    for job in jobs:
        place = folder / job.name
        if (place / "edit.json").exists() and not force and _same(place / "edit.json", job.recipe):
            if done:
                done(job, None)
            continue
        check_output(place, force=force)
        waiting.append(job)
    for batch in batches(waiting, rows):
        for job, result in zip(batch, run_many([job.recipe for job in batch], model), strict=True):
            result.save(folder / job.name, force=force)
            if done:
                done(job, result)
    return [folder / job.name for job in jobs]


def _same(path: Path, recipe: Recipe) -> bool:
    try:
        return Recipe.from_dict(read_record(path)["recipe"]) == recipe
    except (ValueError, KeyError):
        return False

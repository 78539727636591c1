"""A file of independent edits, run in shared forward passes; a stopped run resumes where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, overload

from promptweave.core.files import CannotWrite, check_folder
from promptweave.core.shown import shown
from promptweave.editing.checking import remembering
from promptweave.editing.edit import run_many
from promptweave.editing.job_file import BadJobs as BadJobs
from promptweave.editing.job_file import Found, JobFile, Wrong
from promptweave.editing.job_line import JobLine as JobLine
from promptweave.editing.job_line import make_job, name_of
from promptweave.editing.recipe import Recipe
from promptweave.editing.result import Result, check_output, read_record
from promptweave.models.base import Model

Progress = Callable[[], None]


class Jobs:
    """The jobs of a file, as a sequence of which only the places are in memory: each is read anew when it is used.

    `defaults`: options and settings for lines that do not give them.
    """

    def __init__(self, path: Path | str, model: Model, defaults: Mapping[str, Any] | None = None) -> None:
        self.file, self.defaults = JobFile(path), defaults or {}
        self.model = remembering(model)

    def __len__(self) -> int:
        return len(self.file)

    @overload
    def __getitem__(self, index: int) -> JobLine: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[JobLine]: ...

    def __getitem__(self, index: int | slice) -> JobLine | Sequence[JobLine]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self._made(range(len(self))[index])

    def __iter__(self) -> Iterator[JobLine]:
        return (self[index] for index in range(len(self)))

    def names(self) -> Iterator[str]:
        """The names alone, in order, which takes a fraction of the time."""
        for index, number in enumerate(self.file.numbers):
            yield name_of(self.file.values(index), number)

    def each(self, *, check: bool = False) -> Iterator[JobLine | Wrong]:
        """The jobs in order, or what is wrong with them. `check`: names, too, and images by their headers only."""
        names = Names(self.file)
        for index, number in enumerate(self.file.numbers):
            try:
                job = self._made(index, check)
                if check:
                    names.add(job.name, number, "name" in self.file.values(index))
                yield job
            except (ValueError, TypeError, OSError, RecursionError) as error:
                yield Wrong(number, sentence(error))

    def check(self, checked: Progress | None = None) -> None:
        """Check all lines, and keep none. Raises BadJobs, which lists the first wrong ones."""
        found = Found()
        for job in self.each(check=True):
            if isinstance(job, Wrong):
                found.add(job)
            if checked:
                checked()
        if found.count:
            hint = self.file.hint() if found.count == len(self) else ""
            raise BadJobs(
                f"{found.count} of {len(self)} jobs in {self.file.path} cannot be run:\n{found.listed()}{hint}"
            )

    def _made(self, index: int, check: bool = False) -> JobLine:
        values = {**self.defaults, **self.file.values(index)}
        return make_job(values, self.model, self.file.numbers[index], self.file.path.parent, check=check)


class Names:
    """The names so far; of those that lines give themselves 8 bytes are kept, the others follow from the numbers."""

    def __init__(self, file: JobFile) -> None:
        self.file, self._given = file, set[bytes]()

    def add(self, name: str, number: int, given: bool) -> None:
        """Raise ValueError for a name that an earlier line has."""
        mark = blake2b(name.encode(), digest_size=8).digest()
        if mark in self._given or (given and self._is_number(name, number)):
            raise ValueError(f"Names must be unique. Received {shown(name)}, which line {self._line(name)} has too.")
        if given:
            self._given.add(mark)

    def _is_number(self, name: str, number: int) -> bool:
        """Whether an earlier line without a name is called so after its number."""
        if not name.isdecimal() or not name.isascii() or len(name) > 18 or int(name) >= number:
            return False
        index = self.file.index(int(name))
        return index is not None and f"{int(name):04d}" == name and "name" not in self.file.values(index)

    def _line(self, name: str) -> int:
        for index, number in enumerate(self.file.numbers):
            try:
                if name_of(self.file.values(index), number) == name:
                    return number
            except ValueError:  # a wrong line before has no name
                continue
        return 0


def read_jobs(
    path: Path | str,
    model: Model,
    *,
    defaults: Mapping[str, Any] | None = None,
    check: bool = True,
    checked: Progress | None = None,
) -> Jobs:
    """Read a file of jobs, one JSON object per line: `source`, `targets`, `name` and the options of `edit`.

    Paths of images and masks are relative to the file. All lines are checked before anything runs, unless `check` is
    off: then `run_jobs` checks each before it runs it. `defaults`: options for lines that do not give them. `checked`
    is called after each line. Raises BadJobs, which counts the invalid lines and lists the first.
    """
    jobs = Jobs(path, model, defaults)
    if check:
        jobs.check(checked)
    return jobs


def rows_of(recipe: Recipe) -> int:
    """The number of images that a recipe makes."""
    return len(recipe.prompts) * recipe.images


def batches(jobs: Iterable[JobLine], rows: int) -> Iterator[list[JobLine]]:
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
    jobs: Jobs | Sequence[JobLine],
    model: Model,
    folder: Path | str,
    *,
    rows: int = 8,
    force: bool = False,
    check: bool = True,
    done: Callable[[JobLine, Result | None], None] | None = None,
) -> list[Path]:
    """Run jobs and save each to the subfolder with its name. `rows`: images per forward pass.

    `done(job, result)` is called after each job; `result` is None for a job that had been run before. A folder that
    holds a run of the same recipe is left alone, so that a stopped run can be resumed. One that holds another recipe
    raises FileExistsError before anything runs, unless `force` is given. With `check` off, nothing is checked before
    the first job runs, but each job before it runs itself.

    A job that fails loses no other: the rest is run, and then BadJobs lists those that failed. CannotWrite ends the
    run; jobs that are done stay, and the next run continues behind them.
    """
    folder, found = Path(folder), Found()
    check_folder(folder)
    if check and not force:
        _check_places(jobs, folder)
    names: list[str] = []
    for batch in batches(_waiting(jobs, folder, force, found, names, done, check), rows):
        for job, result in _results(batch, model):
            if isinstance(result, Wrong):
                found.add(result)
                continue
            try:
                result.save(folder / job.name, force=force)
            except CannotWrite as error:
                raise CannotWrite(f"{error} The jobs before {job.name} are done; run the file again.") from error
            if done:
                done(job, result)
    if found.count:
        raise BadJobs(
            f"{found.count} of {len(jobs)} jobs could not be run; the others are done, in {folder}:\n{found.listed()}"
        )
    return [folder / name for name in names]


def _check_places(jobs: Jobs | Sequence[JobLine], folder: Path) -> None:
    """Raise FileExistsError if a job's folder holds the run of another recipe."""
    names = jobs.names() if isinstance(jobs, Jobs) else (job.name for job in jobs)
    for index, name in enumerate(names):
        place = folder / name
        if place.exists() and not ((place / "edit.json").exists() and _same(place / "edit.json", jobs[index].recipe)):
            check_output(place)


def _waiting(
    jobs: Jobs | Sequence[JobLine], folder: Path, force: bool, found: Found, names: list[str],
    done: Callable[[JobLine, Result | None], None] | None, checked: bool,
) -> Iterator[JobLine]:  # fmt: skip
    """The jobs that are not done yet; what is wrong with others is added to `found`, and all names to `names`."""
    for job in jobs.each(check=False) if isinstance(jobs, Jobs) else jobs:
        if isinstance(job, Wrong):
            found.add(job)
            continue
        place = folder / job.name
        names.append(job.name)
        try:
            if not force and (place / "edit.json").exists() and _same(place / "edit.json", job.recipe):
                if done:
                    done(job, None)
                continue
            check_output(place, force=force)
        except CannotWrite:
            raise
        except OSError as error:
            found.add(Wrong(job.line, sentence(error)))
            continue
        yield job


def _results(batch: Sequence[JobLine], model: Model) -> Iterator[tuple[JobLine, Result | Wrong]]:
    """The results of a batch; if its pass fails, those of each job alone, or why it failed."""
    try:
        results = run_many([job.recipe for job in batch], model)
    except (ValueError, TypeError) as error:
        if len(batch) == 1:
            yield batch[0], Wrong(batch[0].line, sentence(error))
            return
        for job in batch:
            yield from _results([job], model)
        return
    yield from zip(batch, results, strict=True)


def sentence(error: BaseException) -> str:
    """An error as one line of a list."""
    if isinstance(error, RecursionError):
        return "Its lists are nested too deeply to read."
    return " ".join(str(error).split()) or type(error).__name__


def _same(path: Path, recipe: Recipe) -> bool:
    try:
        return Recipe.from_dict(read_record(path).get("recipe", {})) == recipe
    except (ValueError, OSError):
        return False

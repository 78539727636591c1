"""Search the strengths of an edit for the price of at most four plain edits: bisection, and a look at early steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Control
from promptweave.editing.edit import Prepared, prepared
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording
from promptweave.finding.found import Found, Point, front_of
from promptweave.finding.ladders import Column, Settings, thresholds
from promptweave.finding.verdicts import EditJudge, Look, Verdict, looked
from promptweave.methods import LocalBlend, Refine, Replace, Reweight, SharedStart
from promptweave.models.base import Model
from promptweave.sampling.loop import decode
from promptweave.sampling.noise_levels import noising
from promptweave.sampling.paused import Paused
from promptweave.sampling.walk import Progress, branches

EDITS = 4  # plain edits that a search may cost
EARLY = 0.6  # of the steps, after which the predicted image is judged
SOLVERS = ("ddim", "euler", "flow-euler")  # their steps go straight to the image that they predict
STEADY = (Replace, Refine, Reweight, LocalBlend, SharedStart)  # under these, latents are those of the solver
FEWEST = 5  # steps, below which nothing is seen early


@dataclass(eq=False)
class Trial:
    """Settings that are tried: run `number` of `paused`. `path`: the last two latents, each with its step. `early`: the
    verdict on the image that they predict; `done`: on the finished one."""

    settings: Settings
    ready: Prepared
    paused: Paused
    number: int
    path: list[tuple[int, Tensor]]
    early: Verdict | None = None
    done: Verdict | None = None
    point: Point | None = None

    @property
    def verdict(self) -> Verdict:
        """The last verdict."""
        found = self.done or self.early
        assert found is not None
        return found

    @property
    def first(self) -> Verdict:
        """The first verdict: those of early images are compared with each other."""
        found = self.early or self.done
        assert found is not None
        return found

    @property
    def share(self) -> int | float:
        """The share of its steps that the run has done."""
        return self.paused.steps[self.number] / self.ready.recipe.steps


@dataclass(eq=False)
class Search:
    """One search. `recipe`: makes the recipe of settings; `recording`: holds the source, if the controls can use one.

    Each column is bisected for the rung with the most control under which the edit is still made. A run is judged after
    `EARLY` of its steps by the image that it predicts there: one that shows the edit waits, to be finished if it comes
    to the front; one that does not goes on to its end, since an early "no" is often wrong.
    """

    model: Model
    judge: EditJudge
    recipe: Callable[[Settings], Recipe]
    recording: Recording | None
    watch: Sequence[Control] = ()
    progress: Progress | None = None
    trials: list[Trial] = field(default_factory=list[Trial])
    paused: list[Paused] = field(default_factory=list[Paused])
    looks: dict[str, Look] = field(default_factory=dict[str, Look])  # the source and the free target, early and done
    each: int = 0  # rows of a run of one prompt,
    source: int = 0  # of the recording,
    least: int = 0  # and of trying one setting

    def run(self, columns: Sequence[Column], given: Settings) -> Found:
        """Bisect the columns, try other thresholds around the best, and finish the front as far as the budget goes."""
        self._measure(columns[0].at(0))
        if self.judge.relative:
            self._free(columns[0].at(0))
        bounds = [(-1, len(column.rungs)) for column in columns]
        while open_ := [i for i, (low, high) in enumerate(bounds) if high - low > 1]:
            middle = {i: sum(bounds[i]) // 2 for i in open_}
            found = self._judged([columns[i].at(rung) for i, rung in middle.items()])
            if not found:
                break
            for (i, rung), trial in zip(list(middle.items())[: len(found)], found, strict=True):
                low, high = bounds[i]
                bounds[i] = (rung, high) if trial.verdict.enough else (low, rung)
            if len(found) < len(middle):
                break
        best = max((trial for trial in self.trials if trial.verdict.enough), key=_kept, default=None)
        for settings in thresholds(best.settings, given) if best else ():
            if self._affords(2):  # itself, and another to finish
                self._judged([settings])
        return self._found()

    def _measure(self, settings: Settings) -> None:
        """The rows of a run of one prompt."""
        recipe = self.recipe(settings)
        self.each = len(branches(self.model, recipe.guidance)) * recipe.images * recipe.steps
        alone = self.recording is not None and self.recording.inverted is not None and self.recording.inverted.pinned
        self.source = 0 if self.recording is None else recipe.steps * recipe.images if alone else self.each
        self.least = self.each * (1 if self.recording is not None else 2)

    @property
    def rows(self) -> int:
        """Rows that the network has computed, those of the recording included."""
        return self.source + sum(paused.rows for paused in self.paused)

    def _affords(self, runs: int | float) -> bool:
        return self.rows + runs * self.least <= EDITS * 2 * self.each

    def _free(self, settings: Settings) -> None:
        """Finish the target without control, which scores are relative to."""
        (trial,) = self._begun([settings])
        if self._early(trial):
            trial.paused.until(EARLY)
            self.looks["free early"] = self._predicted(trial)
        sample = trial.paused.finish(trial.number)
        self.looks["free"] = looked(sample.pictures, sample.hooks, self.watch, -1)
        if "free early" in self.looks:
            (trial.early,) = self._verdicts("early", [self.looks["free early"]])
        self._finish(trial)

    def _judged(self, wanted: Sequence[Settings]) -> list[Trial]:
        """Try settings, side by side, as many as the budget allows; those that were tried before are known."""
        known = {i: t for i, s in enumerate(wanted) for t in self.trials if dict(t.settings) == dict(s)}
        new = [settings for i, settings in enumerate(wanted) if i not in known]
        while new and not self._affords(len(new)):
            new.pop()
        begun = iter(self._begun(new))
        found: list[Trial] = []
        for i in range(len(wanted)):
            trial = known.get(i) or next(begun, None)
            if trial is None:
                return found
            found.append(trial)
        for trial in found:
            if trial.early is None and trial.done is None and self._early(trial):
                trial.paused.until(EARLY)  # the others of its round, too
                (trial.early,) = self._verdicts("early", [self._predicted(trial)])
        for trial in found:
            if trial.done is None and (trial.early is None or not trial.early.enough):
                self._finish(trial)
        return found

    def _begun(self, wanted: Sequence[Settings]) -> list[Trial]:
        if not wanted:
            return []
        paths: list[list[tuple[int, Tensor]]] = [[] for _ in wanted]
        ready = [
            prepared(
                self.recipe(settings), self.model, recording=self.recording, watch=self.watch,
                progress=self._noting(path),
            )
            for settings, path in zip(wanted, paths, strict=True)
        ]  # fmt: skip
        paused = Paused(self.model, [one.jobs[0] for one in ready])
        self.paused.append(paused)
        parts = zip(wanted, ready, paths, strict=True)
        made = [Trial(settings, one, paused, number, path) for number, (settings, one, path) in enumerate(parts)]
        self.trials += made
        return made

    def _noting(self, path: list[tuple[int, Tensor]]) -> Progress:
        def after(step: Step, z: Tensor) -> None:
            path.append((step.index, z))
            del path[:-2]
            if self.progress:
                self.progress(step, z)

        return after

    def _early(self, trial: Trial) -> bool:
        """Whether the image that a run predicts on the way can be told from its latents."""
        job = trial.ready.jobs[0]
        own = None if job.inverted is None else job.inverted.solver(self.model, len(job.prompts) - 1)
        return (
            self.recording is not None
            and self.model.scheduler in SOLVERS
            and all(isinstance(control, STEADY) for control in trial.ready.recipe.controls)
            and not trial.ready.begin.controls
            and own is None
            and job.steps >= FEWEST
        )

    def _predicted(self, trial: Trial) -> Look:
        """The image that the last step predicts: where the line through the last two latents has no noise left."""
        job, ((first, z), (second, later)) = trial.ready.jobs[0], trial.path
        levels = noising(job.solver(self.model), job.noise)
        clean = predicted(z, later, levels.shares[first + 1], levels.shares[second + 1])
        pictures = decode(self.model, clean)
        hooks = trial.paused.hooks(trial.number)
        self.looks["source early"] = looked(pictures, hooks, self.watch, 0)
        return looked(pictures, hooks, self.watch, -1)

    def _verdicts(self, when: str, looks: Sequence[Look]) -> list[Verdict]:
        more = " early" if when == "early" else ""
        return self.judge.judge(self.looks[f"source{more}"], self.looks.get(f"free{more}"), looks)

    def _finish(self, trial: Trial) -> None:
        """Run to the end, and judge the edit itself."""
        sample = trial.paused.finish(trial.number)
        self.looks.setdefault("source", looked(sample.pictures, sample.hooks, self.watch, 0))
        (trial.done,) = self._verdicts("done", [looked(sample.pictures, sample.hooks, self.watch, -1)])
        trial.point = Point(trial.settings, trial.done, 1.0, trial.ready.result(self.model, [sample]))

    def _found(self) -> Found:
        """Finish the runs that showed the edit early, the best first, as far as the budget goes, and pick."""
        waiting = sorted((t for t in self.trials if t.done is None), key=_kept, reverse=True)
        for trial in waiting:
            if self.rows + self._left(trial) <= EDITS * 2 * self.each:
                self._finish(trial)
        points = [trial.point or Point(trial.settings, trial.verdict, trial.share) for trial in self.trials]
        front = front_of(points)
        made = [point for point in front if point.verdict.enough]
        pick = made[0] if made else front[-1]
        return Found(
            tuple(points), front, pick, why(points, pick, self.judge), self.judge.name, self.judge.measure, self.rows,
            2 * self.each,
        )  # fmt: skip

    def _left(self, trial: Trial) -> int | float:
        """Rows until the end of a run."""
        return self.least * (1 - trial.share)


def _kept(trial: Trial) -> int | float:
    return trial.first.kept


def predicted(
    z: Tensor, later: Tensor, before: tuple[int | float, int | float], after: tuple[int | float, int | float]
) -> Tensor:
    """x0 of two latents on a straight line, z = s x0 + n e at the shares (s, n) `before` and `after`."""
    (s, n), (t, m) = before, after
    return (n * later - m * z) / (n * t - m * s)


def why(points: Sequence[Point], pick: Point, judge: EditJudge) -> str:
    """The reason for a pick, as a sentence."""
    made = sum(point.verdict.enough for point in points)
    if not pick.verdict.enough:
        return (
            f"Under none of {len(points)} settings is the edit made, by {judge.name}; {pick.said} comes closest "
            f"({pick.verdict.score:.2f} of 0.5)."
        )
    return (
        f"{pick.said} keeps the most of the {made} of {len(points)} settings under which the edit is made, by "
        f"{judge.name}: {judge.measure} {pick.verdict.kept:.3g}."
    )

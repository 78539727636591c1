"""Shared by all visitors: the models given at the start, the thread that runs them, and the cache of recordings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from threading import Lock, RLock
from typing import Any

from promptweave.apps.web.limits import Limits
from promptweave.apps.web.preview import Preview
from promptweave.apps.web.shelf import Shelf, key_of
from promptweave.apps.web.stock import Stock
from promptweave.core.control import Control
from promptweave.core.record_maps import RecordMaps
from promptweave.editing.computed import Computed
from promptweave.editing.edit import run
from promptweave.editing.masks import with_controls
from promptweave.editing.plan import check_options, plan
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording, base_of, estimate, record_run, recordable
from promptweave.editing.recorders import columns
from promptweave.editing.result import Result
from promptweave.editing.settings import Settings
from promptweave.methods import Refine, Replace
from promptweave.models.base import Model
from promptweave.sampling.recording import Capture, Captured, Kept
from promptweave.sampling.walk import Progress
from promptweave.words import Words

WIDE, USUAL = Kept(1.0, 1.0, 1.0), Kept()  # the first allows any window, the second the default ones


class Studio(Stock):
    """`models`: names for `load`, or loaded models; the first is selected at the start."""

    def __init__(
        self, models: Sequence[Model | str] = ("toybox",), *, device: str = "auto", limits: Limits | None = None
    ) -> None:
        super().__init__(models, device, limits or Limits())
        self.shelf = Shelf(self.limits.recordings * 1_000_000, self.limits.idle)
        self.lock = RLock()  # one run at a time
        self._runner = ThreadPoolExecutor(1, "promptweave-run")  # a thread has memory of its own: the same for all runs
        self._words = Lock()  # tokenizers are not thread-safe
        self._previews: dict[str, Preview] = {}

    def begin(self, action: Callable[[], Any]) -> Future[Any]:
        """Have an action done that computes images: one after the other, in the thread that does all of them."""
        return self._runner.submit(action)

    def close(self) -> None:
        """End the thread when its action is done."""
        self._runner.shutdown(wait=False, cancel_futures=True)

    def words(self, name: str, prompt: str) -> Words:
        """The words of a prompt, as tokenised by a model. Raises TooMuch before any work for one that is too long."""
        network = self.network(name)
        self.limits.text(prompt)
        with self._words:
            return network.words(prompt)

    def preview(self, name: str) -> Preview:
        """The preview of a model's latents."""
        with self._loading:
            if name not in self._previews:
                self._previews[name] = Preview.fit(self.network(name))
            return self._previews[name]

    def make(
        self,
        name: str,
        recipe: Recipe,
        source: Recording | None,
        progress: Progress | None = None,
        holder: Any = None,
        again: Computed | None = None,
    ) -> Result:
        """Run a recipe and record its word maps; a source without edits is also recorded for later edits.

        `holder`: the session that holds the recording, until it is no more. `again`: how it was computed before, to
        compute it in the same passes.
        """
        network = self.network(name)
        self.limits.check(recipe)
        kept = None if recipe.targets or recipe.base or recipe.controls else self._kept(network, recipe)
        read = tuple(columns(self.words(name, prompt)) for prompt in recipe.prompts)
        looking = [RecordMaps(columns=read), *([] if kept is None else [Capture(kept)])]
        done = run(recipe, network, recording=source, watch=looking, progress=progress, again=again)
        count = len(recipe.controls)
        if kept is not None:
            captured = done.sample.hooks[-1]
            assert isinstance(captured, Captured)
            recording = Recording(
                recipe, 0, captured.track(done.sample.pictures[0]), network.fingerprint(), done.inverted,
                Computed(beside=done.computed.beside, whole=True),
            )  # fmt: skip
            self.shelf.put(key_of(name, recipe, 0), recording, holder)
        return replace(done, sample=replace(done.sample, hooks=done.sample.hooks[: count + 1]))

    def edited(
        self,
        name: str,
        recipe: Recipe,
        row: int,
        target: str,
        options: Mapping[str, Any],
        progress: Progress | None = None,
        holder: Any = None,
        *,
        free: bool = False,
    ) -> Result:
        """Edit row `row` of a run with options of `PromptToPrompt`; its recording replaces the source's rows. `free`:
        with all windows closed, without injection, as in a cell of a sweep."""
        network = self.network(name)
        planned = self._planned(network, recipe, row, [target], options)
        recording = None
        if recordable(planned, network):
            recording = self.recording(name, recipe, row, progress, holder)
        if recording is not None:
            planned = plan(recording, [target], network, options)
        if free:
            controls = tuple(one for one in planned.controls if not isinstance(one, Replace | Refine))
            planned = replace(planned, controls=controls)
        return self.make(name, planned, recording, progress, holder)

    def steered(
        self,
        name: str,
        recipe: Recipe,
        row: int,
        prompt: str,
        targets: Sequence[str],
        control: Control,
        progress: Progress | None = None,
        holder: Any = None,
    ) -> Result:
        """Row `row` of a run edited by a control, or, without targets, its image made again under the control.

        `prompt`: that of the row as the method reads it, such as without the brackets that mark phrases. The run is the
        command line's and that of `pw.edit`, source and targets in one, so that its pixels are the same.
        """
        network, recipe = self.network(name), _of_row(recipe, row)
        self.limits.check(replace(recipe, targets=tuple(targets), controls=(control,)))
        if targets:
            return self.make(name, self._planned(network, recipe, row, targets, {}, [control]), None, progress, holder)
        if row or recipe.root.picture is not None or recipe.controls:
            raise ValueError(
                f"{type(control).__name__} steers an image while it is made from its prompt, and the source here is "
                "an edit or a picture of yours. Generate an image, then apply it."
            )
        planned = with_controls(replace(recipe, source=prompt), [control], network)
        check_options(planned.controls)
        return self.make(name, planned, None, progress, holder)

    def _planned(
        self,
        network: Model,
        recipe: Recipe,
        row: int,
        targets: Sequence[str],
        options: Mapping[str, Any],
        controls: Sequence[Control] | None = None,
    ) -> Recipe:
        """The checked recipe of an edit of row `row` of a run."""
        for target in targets:
            self.limits.text(target)
        recipe = _of_row(recipe, row)
        self.limits.check(recipe)
        same = Settings(
            seed=recipe.seed, steps=recipe.steps, guidance=recipe.guidance, size=recipe.size, negative=recipe.negative,
            truncate=recipe.truncate,
        )  # fmt: skip
        chained = bool(row or recipe.controls)
        picture = None if chained else recipe.picture
        planned = plan(
            recipe.prompts[row], targets, network, options, same, controls=controls, image=picture,
            inversion=None if picture is None or recipe.inversion == "direct" else recipe.inversion,
        )  # fmt: skip
        planned = replace(planned, base=recipe, base_row=row) if chained else planned
        self.limits.check(planned)
        return planned

    def recording(
        self, name: str, recipe: Recipe, row: int, progress: Progress | None = None, holder: Any = None
    ) -> Recording | None:
        """The recording of an image, cached or made now; None if it is too large."""
        network = self.network(name)
        self.limits.check(recipe)
        recipe = _of_row(recipe, row)
        key = key_of(name, recipe, row)
        found = self.shelf.get(key, holder)
        if found is not None:
            return found
        below = base_of(recipe, network, progress) if row == 0 else None
        if below is None and row == 0:
            kept = self._kept(network, recipe)
            found = None if kept is None else record_run(recipe, network, kept=kept, progress=progress)
        elif below is not None:
            found = below
        else:
            first = self.recording(name, recipe, 0, progress, holder)
            kept = self._kept(network, recipe) or USUAL
            found = record_run(recipe, network, row=row, kept=kept, progress=progress, source=first)
        if found is not None:
            self.shelf.put(key, found, holder)
        return found

    def _kept(self, network: Model, recipe: Recipe) -> Kept | None:
        """The widest windows whose recording fits into half of the budget."""
        for kept in (WIDE, USUAL):
            if estimate(network, recipe, kept) <= self.shelf.budget // 2:
                return kept
        return None


def _of_row(recipe: Recipe, row: int) -> Recipe:
    """The recipe that makes a row: the source of an edit is made without its targets and what edits them."""
    return replace(recipe, targets=(), controls=()) if row == 0 and recipe.targets else recipe

"""Rebuild a saved image from the recipe it carries, and compare the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from promptweave.core.control import Control, Hooks, Run
from promptweave.core.shown import brief, shown
from promptweave.core.typed import checked
from promptweave.editing.computed import Computed, machine
from promptweave.editing.edit import run
from promptweave.editing.own_model import model_of
from promptweave.editing.recipe import Recipe, versions
from promptweave.editing.record import Recording, base_of, read_by, record_run
from promptweave.editing.result import Result
from promptweave.editing.stored import read_stored
from promptweave.editing.values import read_value
from promptweave.models.base import Model
from promptweave.sampling.loop import Progress

ROUNDING = 2  # of 255: the largest difference that other batches or machines make by rounding


@dataclass(frozen=True, eq=False)
class Replay:
    """`difference`: the largest difference of a colour value, 0 to 255; `share`: of the values, how many differ.

    `notes`: scheduler, weights, versions and machine, where they are not those of the run before.
    """

    result: Result
    picture: Image.Image
    difference: int
    notes: tuple[str, ...]
    share: float = 0.0

    def __repr__(self) -> str:
        return brief(self, self.said)

    @property
    def matches(self) -> bool:
        """Whether all pixels are equal."""
        return self.difference == 0

    @property
    def close(self) -> bool:
        """Whether the pixels are equal but for rounding."""
        return self.difference <= ROUNDING

    @property
    def said(self) -> str:
        """The outcome as a sentence."""
        return outcome(self.difference, self.share, self.notes)


def outcome(difference: int, share: float, notes: Sequence[str]) -> str:
    """How a replay compares, as a sentence. Other versions are named only if there are any."""
    if difference == 0:
        return "The pixels match."
    why = f" Since it was made, {'; '.join(notes)}." if notes else ""
    if difference <= ROUNDING:
        return f"The pixels match within {difference}/255: {share:.2%} of the values are rounded differently.{why}"
    return f"The pixels differ by up to {difference}/255, in {share:.2%} of the values.{why}"


def compared(old: np.ndarray, new: np.ndarray) -> tuple[int, float]:
    """The largest difference of two images, uint8 [height, width, 3], and the share of the values that differ."""
    apart = np.abs(old.astype(int) - new.astype(int))
    return int(apart.max()), float((apart > 0).mean())


@checked
def replay(
    path: Path | str,
    *,
    model: Model | str | None = None,
    allow_modules: Sequence[str] = (),
    progress: Progress | None = None,
) -> Replay:
    """Run the recipe stored in a PNG again and compare the pixels. `model` replaces the one that the recipe names.

    The whole record is checked before a model is loaded. A recipe may name an embedded model, or one that this program
    has loaded before; any other is loaded only if you name it as `model`, since a file of a stranger must not choose
    which folders are read and what is downloaded. Your own controls are found if their module is imported already.
    Otherwise name it in `allow_modules`: it is then imported, which runs its code. Nothing else is imported. Raises
    BrokenRecipe for a file without a readable recipe, and DrawnSheet, which says how to make it again, for a sheet that
    was drawn from several runs or from attention maps.
    """
    stored = read_stored(path, allow_modules=allow_modules)
    recipe = stored.recipe
    network = model_of(recipe, model)
    notes = since({"versions": stored.versions, "machine": stored.machine}, network)
    if network.fingerprint() != stored.hash:
        notes.insert(0, f"the model's weights were {stored.hash}, are {network.fingerprint()}")
    if network.scheduler != recipe.scheduler:
        notes.insert(0, f"the scheduler was {recipe.scheduler}, is {network.scheduler}")
    result = recomputed(recipe, network, stored.computed, compare=stored.sheet or stored.plain, progress=progress)
    if stored.plain and result.plain is not None:
        picture = Image.fromarray(result.plain[stored.prompt, stored.image])
    else:
        picture = result.comparison() if stored.sheet else result.picture(stored.prompt, stored.image)
    old = stored.pixels
    again = np.asarray(picture.convert("RGB"))
    if old.shape != again.shape:
        return Replay(result, picture, 255, (*notes, f"the image's size is {old.shape}, not {again.shape}"), 1.0)
    difference, share = compared(old, again)
    return Replay(result, picture, difference, tuple(notes), share)


def since(record: Mapping[str, Any], network: Model) -> list[str]:
    """The versions of packages and the parts of the machine that are not those of a record. Raises BadValue."""
    pairs = [*versions().items(), *machine(network.device).items()]
    before = {
        name: each
        for part in ("versions", "machine")
        for name, each in read_value(Mapping[str, str], record.get(part, {}), part).items()
    }
    return [
        f"{name} was {shown(before[name]).strip(chr(39))}, is {now}"
        for name, now in pairs
        if before.get(name, now) != now
    ]


def recomputed(
    recipe: Recipe, model: Model, computed: Computed, *, compare: bool = False, progress: Progress | None = None
) -> Result:
    """The result of a recipe in the passes in which it was computed before. `compare`: with the run without controls
    that it was compared with."""
    return run(
        recipe, model, compare=compare and computed.plain is not None,
        recording=recorded_source(recipe, model, computed, progress), again=computed,
        watch=(Watching(),) if computed.watched else (), progress=progress,
    )  # fmt: skip


def recorded_source(
    recipe: Recipe, model: Model, computed: Computed, progress: Progress | None = None, maps: bool = False
) -> Recording | None:
    """The recording on which a run stood, computed again; None if it stood on none. `maps`: it is to hold word maps."""
    made = computed.recording
    if made is None:
        return None
    if recipe.base is None:
        others = (recipe.source,) * (made.prompts - 1)
        of, row, below = replace(recipe, targets=others, controls=()), 0, None
    else:
        of, row = recipe.base, recipe.base_row
        below = recorded_source(of, model, made, progress) or base_of(of, model, progress)
    return record_run(
        of, model, row=row, kept=read_by(recipe, model, maps), source=below, again=made, progress=progress
    )


@dataclass(frozen=True)
class Watching(Control):
    """Stands where recorders stood: the layers are tapped, and the source's rows computed, for nothing but that."""

    def bind(self, run: Run) -> Hooks:
        return Hooks()

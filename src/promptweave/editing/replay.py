"""Rebuild a saved image from the recipe it carries, and compare the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from promptweave.core.typed import checked
from promptweave.editing.edit import run
from promptweave.editing.recipe import BrokenRecipe, Recipe, versions
from promptweave.editing.result import Result, read_record
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.sampling.loop import Progress


@dataclass(frozen=True, eq=False)
class Replay:
    """`difference`: the largest difference of a colour value, 0 to 255. `notes`: versions and weights that differ."""

    result: Result
    picture: Image.Image
    difference: int
    notes: tuple[str, ...]

    @property
    def matches(self) -> bool:
        """Whether all pixels are equal."""
        return self.difference == 0


@checked
def replay(
    path: Path | str, *, model: Model | None = None, allow: Sequence[str] = (), progress: Progress | None = None
) -> Replay:
    """Run the recipe stored in a PNG again and compare the pixels. `model` replaces the one that the recipe names.

    Your own controls are found if their module is imported already. Otherwise name it in `allow`: it is then imported,
    which runs its code. Nothing else is imported. Raises BrokenRecipe for a file without a readable recipe.
    """
    record = read_record(path)
    if "picture" not in record:
        raise BrokenRecipe(f"{path} holds no image to compare with. Replay a PNG of that run.")
    recipe = Recipe.from_dict(record["recipe"], allow=allow)
    network = model or load_cached(recipe.model, recipe.scheduler, recipe.chunks, recipe.prompt_weights)
    notes = [
        f"{package} was {old}, is {versions()[package]}"
        for package, old in record["versions"].items()
        if versions().get(package) != old
    ]
    if network.fingerprint() != record["model"]["hash"]:
        notes.insert(0, f"the model's weights were {record['model']['hash']}, are {network.fingerprint()}")
    if network.scheduler != recipe.scheduler:
        notes.insert(0, f"the scheduler was {recipe.scheduler}, is {network.scheduler}")
    result = run(recipe, network, progress=progress)
    prompt, image = record["picture"]["prompt"], record["picture"]["image"]
    again = result.sample.pictures[prompt, image]
    with Image.open(path) as opened:
        old = np.asarray(opened.convert("RGB"))
    if old.shape != again.shape:
        return Replay(
            result, Image.fromarray(again), 255, (*notes, f"the image's size is {old.shape}, not {again.shape}")
        )
    difference = int(np.abs(old.astype(int) - again.astype(int)).max())
    return Replay(result, Image.fromarray(again), difference, tuple(notes))

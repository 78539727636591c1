"""Rebuild a saved image from the recipe it carries, and compare the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from promptweave.core.shown import shown
from promptweave.core.typed import checked
from promptweave.editing.edit import run
from promptweave.editing.recipe import BrokenRecipe, Recipe, versions
from promptweave.editing.result import Result
from promptweave.editing.stored import read_stored
from promptweave.models.base import Model
from promptweave.models.embedded import NAMES
from promptweave.models.load import CALLED, load_cached
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
    path: Path | str,
    *,
    model: Model | str | None = None,
    allow: Sequence[str] = (),
    progress: Progress | None = None,
) -> Replay:
    """Run the recipe stored in a PNG again and compare the pixels. `model` replaces the one that the recipe names.

    The whole record is checked before a model is loaded. A recipe may name an embedded model, or one that this program
    has loaded before; any other is loaded only if you name it as `model`, since a file of a stranger must not choose
    which folders are read and what is downloaded. Your own controls are found if their module is imported already.
    Otherwise name it in `allow`: it is then imported, which runs its code. Nothing else is imported. Raises
    BrokenRecipe for a file without a readable recipe.
    """
    stored = read_stored(path, allow=allow)
    recipe = stored.recipe
    network = _network(recipe, model)
    notes = [
        f"{package} was {old}, is {versions()[package]}"
        for package, old in stored.versions.items()
        if versions().get(package, old) != old
    ]
    if network.fingerprint() != stored.hash:
        notes.insert(0, f"the model's weights were {stored.hash}, are {network.fingerprint()}")
    if network.scheduler != recipe.scheduler:
        notes.insert(0, f"the scheduler was {recipe.scheduler}, is {network.scheduler}")
    result = run(recipe, network, progress=progress)
    picture, old = result.picture(stored.prompt, stored.image), stored.pixels
    again = np.asarray(picture.convert("RGB"))
    if old.shape != again.shape:
        return Replay(result, picture, 255, (*notes, f"the image's size is {old.shape}, not {again.shape}"))
    difference = int(np.abs(old.astype(int) - again.astype(int)).max())
    return Replay(result, picture, difference, tuple(notes))


def _network(recipe: Recipe, model: Model | str | None) -> Model:
    """The model that was given, or the recipe's, if it is embedded or this program has loaded it before."""
    if model is not None and not isinstance(model, str):
        return model
    return load_cached(trusted(recipe, model), recipe.scheduler, recipe.chunks, recipe.prompt_weights)


def trusted(recipe: Recipe, model: str | None = None) -> str:
    """The name of the model to load: `model`, or the recipe's, if it is embedded or this program has loaded it before.

    Raises BrokenRecipe for any other that only the recipe names.
    """
    name = recipe.model if model is None else model
    if model is None and name not in NAMES and name not in CALLED:
        named = shown(name)
        raise BrokenRecipe(
            f"The recipe names the model {named}. A file that is replayed loads no model by itself, only "
            f"{', '.join(NAMES)}. If you trust that model, name it: model={named} (--model {name[:100]})."
        )
    return name

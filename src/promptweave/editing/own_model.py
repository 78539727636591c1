"""The model that a file was made with: which one to load for a recording, an inverted image or a saved image."""

from __future__ import annotations

from promptweave.core.shown import shown
from promptweave.editing.recipe import BrokenRecipe, Recipe
from promptweave.models.base import Model
from promptweave.models.embedded import NAMES
from promptweave.models.load import CALLED, load_cached

USUAL = "toybox"


def model_of(recipe: Recipe | None, model: Model | str | None) -> Model:
    """The model that was given, else that of the recipe, which then reads prompts and has the scheduler as it says.

    `recipe`: of what the run stands on; None for a prompt, for which toybox is loaded if nothing is given.
    """
    if model is not None and not isinstance(model, str):
        return model
    if recipe is None:
        return load_cached(model or USUAL)
    return load_cached(trusted(recipe, model), recipe.scheduler, recipe.chunks, recipe.prompt_weights)


def trusted(recipe: Recipe, model: str | None = None) -> str:
    """The name of the model to load: `model`, or the recipe's, if it is embedded or this program has loaded it before.

    Raises BrokenRecipe for any other that only the recipe names.
    """
    name = recipe.model if model is None else model
    if model is None and name not in NAMES and name not in CALLED:
        named = shown(name)
        raise BrokenRecipe(
            f"The recipe names the model {named}. A file that is replayed or edited loads no model by itself, only "
            f"{', '.join(NAMES)}. If you trust that model, name it: model={named} (--model {name[:100]})."
        )
    return name

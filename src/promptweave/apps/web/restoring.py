"""Bringing an uploaded image back from the recipe that it carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from promptweave.apps.web.tree import Node
from promptweave.editing.computed import Computed
from promptweave.editing.recipe import Recipe
from promptweave.editing.replay import compared, outcome, recorded_source, since

if TYPE_CHECKING:
    from promptweave.apps.web.session import Session, Watch

BESIDE = 8  # rows of other runs that a restored image may be computed beside, for each image that a run may have


def restored(
    session: Session, recipe: Recipe, record: Mapping[str, Any], old: Image.Image, watch: Watch | None
) -> tuple[Node, str]:
    """Make the image of a recipe again, with what it was made from before it; its node, and how near it is, in words.

    `record`: what the file says beside the recipe; `old`: its pixels. Raises BrokenRecipe, TooMuch and UnknownModel.
    """
    studio = session.studio
    model = studio.named(recipe)
    shown: dict[str, Any] = record["picture"] if isinstance(record.get("picture"), dict) else {}
    row = shown.get("prompt", 0)
    row = row if isinstance(row, int) and 0 < row < len(recipe.prompts) else 0
    computed = Computed.from_dict(record.get("computed", {}))
    if shown.get("plain") and not recipe.targets:  # the image without the controls
        recipe, computed = replace(recipe, controls=()), Computed(beside=computed.plain or ())
    while row == 0 and recipe.base is not None:  # the source of a chained edit is the edit that it builds on
        recipe, row, computed = recipe.base, recipe.base_row, computed.recording or Computed()
    if row == 0 and computed.recording is not None:  # the source was computed for the recording
        recipe, computed = replace(recipe, targets=(), controls=()), computed.recording
    computed = replace(computed, plain=None)
    if computed.rows > BESIDE * studio.limits.images:  # it may round differently then, and that is said
        computed = replace(computed, beside=(), recording=None)
    recipe = replace(recipe, images=1)
    with session.running():
        network = studio.network(model)
        notes = since(record, network)
        source = recorded_source(recipe, network, computed, session.progress(watch), maps=True)
        made = studio.make(model, recipe, source, session.progress(watch), session.holder, computed)
        steered = bool(recipe.controls) and not recipe.targets  # the image without them stands before it
        plain = replace(recipe, controls=())
        first = studio.make(model, plain, None, session.progress(watch), session.holder) if steered else made
    session.model = model
    node = session.tree.add(first, 0, model, None)
    if row or steered:
        node = session.tree.add(made, row, model, node.number)
    before, again = np.asarray(old), np.asarray(node.picture.convert("RGB"))
    if before.shape != again.shape:
        return node, "Restored, at another size than the upload has."
    said = outcome(*compared(before, again), notes)
    return node, f"Restored: {said[0].lower()}{said[1:]}"

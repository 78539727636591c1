"""A method with a command of its own, applied to an image of the page or of a call of its API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptweave.apps.web.offered import TARGETS, method_of
from promptweave.apps.web.session import Session, Watch
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.tree import Node
from promptweave.editing.recipe import Recipe
from promptweave.editing.result import Result
from promptweave.sampling.walk import Progress


def apply(session: Session, method: str, target: str, fields: Mapping[str, Any], watch: Watch | None = None) -> Node:
    """Apply a method to the base image and show the result; one with several targets adds as many images.

    `target`: the edited prompt, for methods that read it; `fields`: the method's options, as texts or values.
    """
    base = session.base
    with session.running():
        made = applied(
            session.studio, base.model, base.recipe, base.row, method, target, fields, session.progress(watch),
            session.holder,
        )  # fmt: skip
    rows = range(1, len(made.recipe.prompts)) or (0,)
    nodes = [session.tree.add(made, row, base.model, base.number) for row in rows]
    return nodes[0] if len(nodes) == 1 else session.go(nodes[0].number)


def applied(
    studio: Studio, model: str, recipe: Recipe, row: int, method: str, target: str, fields: Mapping[str, Any],
    progress: Progress | None = None, holder: Any = None,
) -> Result:  # fmt: skip
    """Row `row` of a run under a method: its last rows, or its only one, are the images."""
    network = studio.network(model)
    chosen = method_of(method, network)
    if chosen.kind is not None:
        raise ValueError(f"{method} is a kind of edit. Ask for it with edit, as its kind.")
    for text in (target, *(value for value in fields.values() if isinstance(value, str))):
        studio.limits.text(text)
    prompt, again, control = chosen.asked(network, recipe.prompts[row], fields)
    targets = (target,) if chosen.prompts == TARGETS else (prompt,) * again
    return studio.steered(model, recipe, row, prompt, targets, control, progress, holder)

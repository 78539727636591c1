"""What the page suggests to a visitor: strengths for an edit, known words, and the region of what was swapped."""

from __future__ import annotations

from promptweave.apps.web.offered import EDIT
from promptweave.apps.web.session import Session
from promptweave.apps.web.settings import Form, asked_of
from promptweave.apps.web.world_words import Unknown, unknown_words
from promptweave.core.clock import Number
from promptweave.editing.usual_strengths import usual_strengths
from promptweave.words.edit_kinds import change

MUCH = 0.5  # of a photo's pixels: an edit that changed more is offered its new words alone


def strengths(
    session: Session, source: str, target: str, steps: int, weighted: tuple[str, ...] = ()
) -> dict[str, Number]:
    """The windows that are usual for the kind of edit."""
    old, new = (session.studio.words(session.model, prompt) for prompt in (source, target))
    return usual_strengths(old, new, steps, weighted)[1].windows


def unknown(session: Session, source: str, target: str) -> list[Unknown]:
    """The words of two prompts that an embedded model has not learned."""
    old, new = (session.studio.words(session.model, prompt) for prompt in (source, target))
    return unknown_words(session.studio.network(session.model), old, new)


def swapped(session: Session) -> tuple[str, ...]:
    """The new words of an edit of a photo that changed most of it, to which it might be restricted; else none."""
    node = session.shown
    if not node.row or node.parent not in session.tree.nodes or node.recipe.root.picture is None:
        return ()
    if asked_of(node.recipe, node.row)[0] != EDIT or Form.of(node.recipe, node.row).blend:
        return ()
    if session.distance()["changed_pixels"] <= MUCH:
        return ()
    old = session.studio.words(node.model, session.tree.nodes[node.parent].prompt)
    return change(old, session.studio.words(node.model, node.prompt)).new

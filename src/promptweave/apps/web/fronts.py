"""The front of a search on the page: found once, then walked along without further computing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import gradio as gr

from promptweave.apps.web.limits import TooMuch
from promptweave.apps.web.session import NothingYet, Session, Watch
from promptweave.apps.web.settings import Form
from promptweave.apps.web.tree import Node
from promptweave.finding.find import find
from promptweave.finding.search import EDITS


def search(session: Session, settings: Form, watch: Watch | None = None) -> Node:
    """Search the strengths of the edit from the base's recording, and show the edit that is picked."""
    base, studio = session.base, session.studio
    network = studio.network(base.model)
    with session.running():
        recording = studio.recording(base.model, base.recipe, base.row, session.progress(watch), session.holder)
        if recording is None:
            raise TooMuch("A search needs a recording, and this image's is too large. Use fewer steps.")
        steps = (2 * EDITS - 1) * recording.recipe.steps
        found = find(
            recording, studio.limits.text(settings.target), model=network, maps=True,
            progress=session.progress(watch, total=steps), **settings.fixed(studio.joint(base.model)),
        )  # fmt: skip
    session.found, session.fronts = found, {}
    return along(session, found.front.index(found.pick))


def along(session: Session, place: int) -> Node:
    """Show a point of the front, counted from the one that keeps the most."""
    if session.found is None:
        raise NothingYet("There is no front yet. Find the strengths first.")
    if session.fronts.get(place) not in session.tree.nodes:
        result, base = session.found.front[place].result, session.base
        assert result is not None
        hooks = result.sample.hooks[: len(result.recipe.controls) + 1]  # and the maps of the words
        shown = replace(result, sample=replace(result.sample, hooks=hooks))
        session.fronts[place] = session.tree.add(shown, 1, base.model, base.number).number
    return session.go(session.fronts[place])


def shown(parts: Any, session: Session) -> dict[Any, Any]:
    """The slider along the front and its plot, while the image on the page is of it; no slider for any other."""
    place = next((place for place, number in session.fronts.items() if number == session.tree.shown), None)
    if session.found is None or place is None:
        return {parts.front: gr.update(visible=False)}
    last = len(session.found.front)
    slider = gr.update(visible=last > 1, maximum=max(2, last), value=place + 1)
    return {parts.front: slider, parts.plot: session.found.sheet()}


class Finding:
    """The handlers of the button and of the slider. `events`: those of the page (`page.Events`)."""

    def __init__(self, events: Any) -> None:
        self.events = events

    def connect(self, asked: set[Any], changed: list[Any], how: dict[str, Any], at_once: dict[str, Any]) -> None:
        """Attach the handlers. `asked`: the fields of an edit; `changed`: all that depends on the image."""
        p = self.events.parts
        p.find.click(self.find, asked, changed, **how)
        place = {self.events.session, p.front, *p.typed}
        p.front.release(self.along, place, changed, trigger_mode="always_last", **at_once)

    def find(self, data: Mapping[Any, Any]) -> Iterator[Any]:
        """Search the strengths, and set the sliders to those that are picked."""
        runs = self.events.runs
        session, asked = self.events.read(data)

        def action(watch: Any) -> str:
            form = asked.form
            runs.source_of(session, asked, watch)
            search(session, form, watch)
            assert session.found is not None
            return f"{session.found.why[0].upper()}{session.found.why[1:]}"

        yield from runs.work(session, "Searching the strengths", action, edit=True, controls=True)

    def along(self, data: Mapping[Any, Any]) -> Any:
        """On moving along the front: show that edit, with its settings."""
        place = int(data[self.events.parts.front]) - 1
        act: Callable[[Session], Node] = lambda s: along(s, place)  # noqa: E731
        return self.events.moved(data, act)

"""The page's events: each calls the visitor's session and shows the result. `runs` has those that compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from promptweave.apps.web import api, view
from promptweave.apps.web.asked import Asked
from promptweave.apps.web.choosing import Choosing, chosen
from promptweave.apps.web.fronts import Finding
from promptweave.apps.web.layout import Parts, lay_out
from promptweave.apps.web.offered import EDIT
from promptweave.apps.web.outbox import Outbox
from promptweave.apps.web.perceiving import Perceiving
from promptweave.apps.web.runs import ONE_AT_A_TIME, Fields, Runs
from promptweave.apps.web.session import Session
from promptweave.apps.web.settings import about
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.words import note_html
from promptweave.apps.web.work import sentence

AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
FETCH = "() => { setTimeout(() => document.querySelector('#written').click(), 100); }"  # once the button has its file


def build_page(studio: Studio, outbox: Outbox) -> gr.Blocks:
    """The whole page. What it keeps for its visitors is freed by a `Keeper`."""
    with gr.Blocks(title="promptweave", analytics_enabled=False, fill_width=True) as page:
        api.add(studio, outbox)  # first, so that its endpoints get their plain names
        session = gr.State(None)
        parts = lay_out(studio)
        Events(studio, parts, session, outbox).connect(page)
    return page


class Events:
    """The event handlers. They read the session and fields, and return a component -> value mapping."""

    def __init__(self, studio: Studio, parts: Parts, session: gr.State, outbox: Outbox) -> None:
        self.studio, self.parts, self.session, self.outbox = studio, parts, session, outbox
        self.runs = Runs(self)

    def connect(self, page: gr.Blocks) -> None:
        """Attach the handlers."""
        p = self.parts
        typed, shown = {self.session, *p.typed}, [self.session, *p.shown]
        page.load(self.open, typed, shown, **AT_ONCE)
        self.runs.connect()
        gr.on([p.prompt.change, p.target.change], self.type, typed, shown, trigger_mode="always_last", **AT_ONCE)
        p.model.input(self.choose, typed, shown, **AT_ONCE)
        p.stop.click(self.stop, [self.session], [p.status], **AT_ONCE)
        p.inversion.input(self.invert, [p.inversion], [p.about, p.tuning], **AT_ONCE)
        Choosing(self).connect(typed, shown, AT_ONCE)
        Finding(self).connect({self.session, *p.fields}, shown, ONE_AT_A_TIME, AT_ONCE)
        p.look.input(self.look, [self.session, p.look], [p.heat, p.status], **AT_ONCE)
        p.history.select(self.go, [self.session], shown, **AT_ONCE)
        p.undo.click(self.undo, [self.session], shown, **AT_ONCE)
        made = p.report.click(self.report, [self.session], [p.written, p.status], **AT_ONCE)
        made.success(None, js=FETCH)
        p.further.click(self.further, [self.session], shown, **AT_ONCE)
        Perceiving(self.studio, p).connect(**{**ONE_AT_A_TIME, "show_progress": "full"})

    def open(self, data: Fields) -> dict[Any, Any]:
        """On load: start a new session."""
        asked = self.asked(data)
        session = Session(self.studio, asked["model"])
        return {self.session: session, **view.words(self, session, asked), **view.windows(self, session)}

    def invert(self, inversion: Any) -> Any:
        """On choosing an inversion: what it does, and the options that it has."""
        return {self.parts.about: about(inversion), self.parts.tuning: ""}

    def stop(self, session: Any) -> Any:
        """Stop the run at its next step."""
        if isinstance(session, Session):
            session.stop.set()
        return gr.skip()

    def type(self, data: Fields) -> Any:
        """While a prompt is typed: how its words match, and their sliders."""
        session, asked = self.read(data)
        return view.words(self, session, asked)

    def choose(self, data: Fields) -> Any:
        """On changing the model: show its words, its windows and its number of steps."""
        session, asked = self.read(data)
        steps = {self.parts.steps: self.studio.steps(session.model)}
        found = {**view.words(self, session, asked), **view.windows(self, session), **steps}
        return view.merged(found, chosen(self.parts, session, EDIT))

    def look(self, session: Any, word: Any) -> Any:
        return self._light(session, lambda s: {self.parts.heat: view.large(s.heat(word)) if word else None})

    def go(self, session: Any, event: gr.EventData) -> Any:
        return self.moved(session, lambda s: s.go(int(event.number)))

    def undo(self, session: Any) -> Any:
        return self.moved(session, lambda s: s.undo())

    def further(self, session: Any) -> Any:
        return self.moved(session, lambda s: s.further())

    def report(self, session: Any) -> Any:
        """Write the report on request, since it takes longer than showing an image."""
        return self._light(session, lambda s: {self.parts.written: str(s.report(self.outbox.folder(s)))})

    def moved(self, session: Any, move: Callable[[Session], Any]) -> Any:
        """Show another image, and the fields that it was made with."""

        def act(s: Session) -> dict[Any, Any]:
            move(s)
            return {self.parts.status: note_html(view.summary(s)), **view.everything(self, s, controls=True)}

        return self._light(session, act)

    def _light(self, session: Any, act: Callable[[Session], dict[Any, Any]]) -> Any:
        try:
            return act(self.session_of(session))
        except Exception as error:
            return {self.parts.status: note_html(sentence(error), "error")}

    def session_of(self, session: Any, model: Any = None) -> Session:
        session = session if isinstance(session, Session) else Session(self.studio)
        session.model = model or session.model
        return session

    def asked(self, data: Fields) -> Asked:
        """The fields by name."""
        return Asked(self.parts.named, data)

    def read(self, data: Mapping[Any, Any]) -> tuple[Session, Asked]:
        """The session, set to the model that is chosen, and the fields by name."""
        asked = self.asked(data)
        return self.session_of(data[self.session], asked["model"]), asked

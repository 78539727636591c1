"""The page's events: each calls the visitor's session and shows the result. `runs` has those that compute."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from promptweave.apps.web import api, view
from promptweave.apps.web.asked import Asked
from promptweave.apps.web.choosing import Choosing, chosen
from promptweave.apps.web.fronts import Finding
from promptweave.apps.web.layout import DRAFTS, Parts, lay_out
from promptweave.apps.web.offered import EDIT
from promptweave.apps.web.outbox import Outbox
from promptweave.apps.web.page_errors import page_sentence
from promptweave.apps.web.perceiving import Perceiving
from promptweave.apps.web.presets import EXAMPLES, STRENGTHS
from promptweave.apps.web.runs import ONE_AT_A_TIME, TEXTS, Fields, Runs
from promptweave.apps.web.session import Session
from promptweave.apps.web.session_keys import SessionKeys
from promptweave.apps.web.settings import OWN_SIZE, about
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.waiting import STOPPED, Waiting
from promptweave.apps.web.words import note_html

AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
KEY_READ = "() => sessionStorage.getItem('promptweave') || ''"  # of the tab: a second one has images of its own
KEY_KEPT = "(key) => { sessionStorage.setItem('promptweave', key); }"
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
        self.runs, self.keys = Runs(self), SessionKeys()

    def connect(self, page: gr.Blocks) -> None:
        """Attach the handlers."""
        p, self.waiting = self.parts, Waiting(page, self.parts)
        typed, shown = {self.session, *p.typed}, [self.session, *p.shown]
        found = page.load(None, None, [p.key], js=KEY_READ, **AT_ONCE)
        found.then(self.open, {*typed, p.key}, shown, **AT_ONCE).then(None, [p.key], None, js=KEY_KEPT, **AT_ONCE)
        self.runs.connect(self.waiting, AT_ONCE)
        gr.on([p.prompt.change, p.target.change], self.type, typed, shown, trigger_mode="always_last", **AT_ONCE)
        settings = (p.seed, p.steps, p.guidance, p.images, p.negative, p.size, p.scheduler, p.truncate, p.live)
        gr.on([part.input for part in settings], self.note, typed, None, trigger_mode="always_last", **AT_ONCE)
        p.model.input(self.choose, typed, shown, **AT_ONCE)
        p.example.input(self.example, [p.example], [p.prompt, p.target, p.seed], **AT_ONCE)
        p.dice.click(self.dice, None, [p.seed], **AT_ONCE)
        p.stop.click(self.stop, [self.session], [p.status], **AT_ONCE)
        p.inversion.input(self.invert, [p.inversion], [p.about, p.tuning], **AT_ONCE)
        Choosing(self).connect(typed, shown, AT_ONCE)
        Finding(self).connect({self.session, *p.fields}, shown, ONE_AT_A_TIME, AT_ONCE)
        p.look.input(self.look, [self.session, p.look], [p.heat, p.status, p.alts], **AT_ONCE)
        gr.on([p.history.select, p.strip.select], self.go, typed, shown, **AT_ONCE)
        p.undo.click(self.undo, typed, shown, **AT_ONCE)
        made = p.report.click(self.report, [self.session], [p.written, p.status], **AT_ONCE)
        made.success(None, js=FETCH)
        p.further.click(self.further, typed, shown, **AT_ONCE)
        Perceiving(self.studio, p).connect(**{**ONE_AT_A_TIME, "show_progress": "full"})

    def open(self, data: Fields, request: gr.Request) -> dict[Any, Any]:
        """On load: the session of the key that the browser has kept, as it was, or else a new one."""
        p, asked, user = self.parts, self.asked(data), getattr(request, "username", None)
        session = self.keys.find(data[p.key], user)
        if session is None:
            session = Session(self.studio, self.studio.variant(asked["model"], None))
            session.filled = {name: asked[name] for name in TEXTS}
            shown = {**view.windows(self, session), **view.words(self, session, asked)}
        else:
            shown = self.again(session, asked)
        return {**shown, self.session: session, p.key: self.keys.key(session, user)}

    def again(self, session: Session, asked: Asked) -> dict[Any, Any]:
        """The image of a session that is shown anew, and what its fields held."""
        p, shown = self.parts, dict[Any, Any]()
        if session.tree.shown is not None:
            filled, drafts, session.canvas = session.filled, session.drafts.copy(), None
            shown = {p.status: note_html(view.summary(session)), **view.everything(self, session, controls=True)}
            session.filled, session.drafts = filled, drafts
        else:
            shown = view.windows(self, session)
        held = Asked({**asked.values, **session.drafts})
        values = {name: value for name, value in session.drafts.items() if name not in ("blend", "subtract")}
        choices = {p.scheduler: gr.update(choices=self.studio.schedulers(held["model"]), value=held["scheduler"])}
        typed = {p.named[name]: value for name, value in values.items()}
        words = {part: new for part, new in view.words(self, session, held).items() if part is not self.session}
        shown = view.merged(view.merged(shown, {**typed, **choices, **words}), chosen(p, session, held["method"]))
        return {**shown, p.own: held["own"]} if session.drafts else shown

    def note(self, data: Fields) -> None:
        """Remember what the fields hold, for a page that is loaded anew."""
        self.read(data)

    def preset(self, data: Fields) -> dict[Any, Any]:
        """On choosing strengths to begin with: on all sliders of windows."""
        session, asked = self.read(data)
        p, found = self.parts, STRENGTHS.get(asked["preset"])
        if found is not None:
            return dict(zip((p.cross, p.self, p.joint), found, strict=True))
        return view.usual(self, session, asked, {}, moved=True)

    def example(self, name: str) -> dict[Any, Any]:
        """On choosing an example: its prompts and its seed."""
        p, found = self.parts, EXAMPLES.get(name)
        if found is None:
            return gr.skip()
        return {p.prompt: found.source, p.target: found.target, p.seed: found.seed}

    def dice(self) -> int:
        """A seed drawn at random."""
        return secrets.randbelow(self.studio.limits.seed)

    def invert(self, inversion: Any) -> Any:
        """On choosing an inversion: what it does, and the options that it has."""
        return {self.parts.about: about(inversion), self.parts.tuning: ""}

    def stop(self, session: Any, request: gr.Request) -> Any:
        """Stop the run at its next step, and those that wait."""
        if not isinstance(session, Session):
            return gr.skip()
        session.stop.set()
        if self.waiting.give_up(session, str(request.session_hash)):
            return note_html(STOPPED)
        return gr.skip()

    def type(self, data: Fields) -> Any:
        """While a prompt is typed: how its words match, and their sliders."""
        session, asked = self.read(data)
        return view.words(self, session, asked)

    def choose(self, data: Fields) -> Any:
        """On changing the model: show its words, its windows, and what suits it."""
        p, asked, studio = self.parts, self.asked(data), self.studio
        session = self.session_of(data[self.session], studio.variant(asked["model"], None))
        session.drafts = {}
        name = session.model
        own = {
            p.steps: studio.steps(name), p.guidance: studio.guidance(name),
            p.size: gr.update(choices=studio.sizes(name), value=OWN_SIZE),
            p.scheduler: gr.update(choices=studio.schedulers(name), value=studio.network(name).scheduler),
        }  # fmt: skip
        found = {**view.windows(self, session), **view.words(self, session, asked), **own}
        return view.merged(found, chosen(p, session, EDIT))

    def look(self, session: Any, word: Any) -> Any:
        p = self.parts

        def act(s: Session) -> dict[Any, Any]:
            return {p.heat: view.large(s.heat(word)) if word else None, p.alts: view.alts(s, word)}

        return self._light(session, act)

    def go(self, data: Fields, event: gr.EventData) -> Any:
        return self.moved(data, lambda s: s.go(int(event.number)))

    def undo(self, data: Fields) -> Any:
        return self.moved(data, lambda s: s.undo())

    def further(self, data: Fields) -> Any:
        return self.moved(data, lambda s: s.further())

    def report(self, session: Any) -> Any:
        """Write the report on request, since it takes longer than showing an image."""
        return self._light(session, lambda s: {self.parts.written: str(s.report(self.outbox.folder(s)))})

    def moved(self, data: Fields, move: Callable[[Session], Any]) -> Any:
        """Show another image, and the fields that it was made with; texts that were typed since the last run stay."""
        asked = self.asked(data)

        def act(s: Session) -> dict[Any, Any]:
            typed = {name: asked[name] for name in TEXTS if asked[name] != s.filled.get(name, asked[name])}
            move(s)
            s.drafts = {name: value for name, value in asked.values.items() if name in DRAFTS}
            shown = view.everything(self, s, controls=True)
            said = view.summary(s)
            if typed:
                held = Asked({**asked.values, **{"prompt": s.base.prompt, "target": s.shown.prompt}, **typed})
                texts = {self.parts.named[name]: value for name, value in typed.items()}
                found = {part: new for part, new in view.words(self, s, held).items() if part is not self.session}
                shown = view.merged(shown, {**found, **texts})
                said += " What you typed stays."
            s.drafts |= typed
            return {self.parts.status: note_html(said), **shown}

        return self._light(data[self.session], act)

    def _light(self, session: Any, act: Callable[[Session], dict[Any, Any]]) -> Any:
        try:
            return act(self.session_of(session))
        except Exception as error:
            return {self.parts.status: note_html(page_sentence(error), "error")}

    def session_of(self, session: Any, model: Any = None) -> Session:
        session = session if isinstance(session, Session) else Session(self.studio)
        session.model = model or session.model
        return session

    def asked(self, data: Fields) -> Asked:
        """The fields by name."""
        return Asked({name: data[part] for name, part in self.parts.named.items() if part in data})

    def read(self, data: Mapping[Any, Any]) -> tuple[Session, Asked]:
        """The session, set to the model that is chosen, and the fields by name."""
        asked = self.asked(data)
        fits = asked["scheduler"] in self.studio.schedulers(asked["model"])  # else the model was just changed
        chosen_model = self.studio.variant(asked["model"], asked["scheduler"] if fits else None)
        session = self.session_of(data[self.session], chosen_model)
        session.drafts = {name: value for name, value in asked.values.items() if name in DRAFTS}
        return session, asked

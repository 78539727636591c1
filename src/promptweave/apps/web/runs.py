"""The events that compute: they run one after the other, with a preview, and show what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from promptweave.apps.web import view
from promptweave.apps.web.applying import apply
from promptweave.apps.web.asked import Asked
from promptweave.apps.web.offered import method_of
from promptweave.apps.web.presence import gone
from promptweave.apps.web.session import Cancelled, Session
from promptweave.apps.web.words import note_html, progress_html
from promptweave.apps.web.work import Work, sentence
from promptweave.editing.settings import Settings

Fields = Mapping[Any, Any]  # what components hold, as an event brings it
ONE_AT_A_TIME: dict[str, Any] = {
    "concurrency_id": "network", "concurrency_limit": 1, "api_visibility": "private", "show_progress": "hidden"
}  # fmt: skip


class Runs:
    """The handlers. `events`: those of the page (`page.Events`). Each yields what components show."""

    def __init__(self, events: Any) -> None:
        self.events, self.parts = events, events.parts

    def connect(self) -> None:
        """Attach the handlers."""
        p, session = self.parts, self.events.session
        asked, shown, how = {session, *p.fields}, [session, *p.shown], ONE_AT_A_TIME
        gr.on([p.generate.click, p.prompt.submit], self.generate, asked, shown, **how)
        gr.on([p.apply.click, p.target.submit, p.own.submit], self.edit, asked, shown, **how)
        moved = [s.release for s in (p.strengths, p.cross, p.self, p.joint, p.threshold, p.own)]
        gr.on([*moved, p.blend.input, p.subtract.input], self.slide, asked, shown, trigger_mode="always_last", **how)
        p.upload.upload(self.upload, {*asked, p.upload}, shown, **how)
        p.sweep.click(self.sweep, asked, shown, **how)
        p.grid.select(self.adopt, [session], shown, **how)

    def generate(self, data: Fields) -> Iterator[Any]:
        session, asked = self.events.read(data)

        def action(watch: Any) -> None:
            session.generate(asked.prompt, asked.seed, asked.steps, watch)

        yield from self.work(session, "Generating", action, edit=False)

    def edit(self, data: Fields) -> Iterator[Any]:
        session, asked = self.events.read(data)

        def action(watch: Any) -> None:
            name, fields = asked.method
            form = asked.form if method_of(name, self.events.studio.network(session.model)).kind else None
            self.source_of(session, asked, watch)
            if form is None:
                apply(session, name, asked.target, fields, watch)
            else:
                session.edit(form, watch)

        yield from self.work(session, "Editing", action, edit=True)

    def slide(self, data: Fields) -> Iterator[Any]:
        """On releasing a slider: re-run the edit, if there is one."""
        session, asked = self.events.read(data)
        if not asked["live"] or session.tree.shown is None or session.shown.parent is None:
            yield {self.parts.status: note_html("Apply the edit to see the change.")}
            return
        yield from self.edit(data)

    def sweep(self, data: Fields) -> Iterator[Any]:
        session, asked = self.events.read(data)

        def action(watch: Any) -> None:
            columns, rows, form = view.numbers(asked["crosses"]), view.numbers(asked["selves"]), asked.form
            self.source_of(session, asked, watch)
            session.sweep(form, columns, rows, watch)

        yield from self.work(session, "Making the grid", action, edit=True)

    def adopt(self, session: Any, event: gr.SelectData) -> Iterator[Any]:
        session, place = self.events.session_of(session), int(event.index)

        def action(watch: Any) -> None:
            session.adopt(place, watch)

        yield from self.work(session, "Adopting the settings", action, edit=True, controls=True)

    def upload(self, data: Fields) -> Iterator[Any]:
        """Restore a PNG saved by promptweave; make any other image the source."""
        session, asked = self.events.read(data)
        path = data[self.parts.upload]

        def action(watch: Any) -> str:
            more, spec = asked.of_upload, asked.spec
            return session.open(path, asked.prompt, asked.seed, asked.steps, watch, more, spec)[1]

        yield from self.work(session, "Opening", action, edit=False, controls=True)

    def source_of(self, session: Session, asked: Asked, watch: Any) -> None:
        """Generate the source first, unless the one on the page matches the fields."""
        if session.tree.base is not None:
            base = session.base
            picture = base.recipe.root.picture
            spec = None if picture is None else asked.spec
            made = (base.prompt, base.recipe.seed, base.recipe.steps, base.model, spec and base.recipe.inversion)
            if made == (asked.prompt, asked.seed, asked.steps, session.model, spec):
                return
            if picture is not None:
                size = base.recipe.size if base.model == session.model else base.recipe.size and "auto"
                session.bring(picture, asked.prompt, asked.seed, asked.steps, watch, Settings(size=size), spec)
                return
        session.generate(asked.prompt, asked.seed, asked.steps, watch)

    def work(
        self, session: Session, what: str, action: Callable[[Any], Any], *, edit: bool, controls: bool = False
    ) -> Iterator[Any]:
        """Run with a preview and a progress bar. An error only changes the status line."""
        events, p, work = self.events, self.parts, Work(session, action)
        session.gone = gone()
        yield {events.session: session, p.status: note_html(f"{what} …")}
        try:
            for look in work:
                changes: dict[Any, Any] = {p.status: progress_html(look.done, look.count, what)}
                if look.latents is not None:
                    changes |= view.preview(events, session, look.latents, edit)
                yield changes
        except Cancelled:
            back = view.everything(events, session) if session.tree.shown else {p.picture: None}
            yield {p.status: note_html("Stopped. Nothing was changed."), **back}
        except Exception as error:
            back = view.everything(events, session) if session.tree.shown else {}
            yield {p.status: note_html(sentence(error), "error"), **back}
        else:
            said = f"{work.value} " if isinstance(work.value, str) else ""
            note = {p.status: note_html(said + view.summary(session))}
            yield {events.session: session, **note, **view.everything(events, session, controls=controls)}

"""The events that compute: they run one after the other, with a preview, and show what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import gradio as gr

from promptweave.apps.web import suggestions, view
from promptweave.apps.web.applying import apply
from promptweave.apps.web.asked import Asked
from promptweave.apps.web.offered import method_of
from promptweave.apps.web.page_errors import page_sentence
from promptweave.apps.web.presence import gone
from promptweave.apps.web.session import Cancelled, Session
from promptweave.apps.web.waiting import STOPPED, Waiting, given_up
from promptweave.apps.web.words import note_html, progress_html
from promptweave.apps.web.work import Work
from promptweave.editing.settings import Settings

Fields = Mapping[Any, Any]  # what components hold, as an event brings it
TEXTS = ("prompt", "target", "negative")  # fields that are kept if they hold what was typed since the last run
ONE_AT_A_TIME: dict[str, Any] = {
    "concurrency_id": "network", "concurrency_limit": 1, "api_visibility": "private", "show_progress": "hidden"
}  # fmt: skip


class Runs:
    """The handlers. `events`: those of the page (`page.Events`). Each yields what components show."""

    def __init__(self, events: Any) -> None:
        self.events, self.parts = events, events.parts

    def connect(self, waiting: Waiting, at_once: Mapping[str, Any]) -> None:
        """Attach the handlers, and those that tell whoever waits (`Waiting`)."""
        p, session = self.parts, self.events.session
        asked, shown, how = {session, *p.fields}, [session, *p.shown], ONE_AT_A_TIME
        generating = [p.generate.click, p.prompt.submit, p.seed.submit]
        editing = [p.apply.click, p.target.submit, p.own.submit]
        moved = [s.release for s in (p.strengths, p.cross, p.self, p.joint, p.threshold, p.own)]
        moved += [p.blend.input, p.subtract.input]
        begun = [*generating, *editing, *moved, p.upload.upload, p.sweep.click, p.grid.select, p.only.click,
                 p.find.click]  # fmt: skip
        # first, for the events of a component begin one after the other
        gr.on(begun, waiting.begin, None, [p.clock, p.stop, p.status], **at_once)
        gr.on(generating, self.generate, asked, shown, **how)
        gr.on(editing, self.edit, asked, shown, **how)
        gr.on(moved, self.slide, asked, shown, trigger_mode="always_last", **how)
        p.preset.input(self.events.preset, {session, *p.typed, p.preset}, shown, **at_once).then(
            self.slide, asked, shown, **how
        )
        p.upload.upload(self.upload, {*asked, p.upload}, shown, **how)
        p.sweep.click(self.sweep, asked, shown, **how)
        p.grid.select(self.adopt, [session], shown, **how)
        p.only.click(self.only, asked, shown, **how)
        p.clock.tick(waiting.tick, None, [p.clock, p.stop, p.status], **at_once)

    def generate(self, data: Fields) -> Iterator[Any]:
        """Generate the source; of several images, which have consecutive seeds, the first is shown."""
        session, asked = self.events.read(data)

        def action(watch: Any) -> None:
            session.several(asked.prompt, asked.seed, asked.images, asked.steps, watch, asked.settings)

        yield from self.work(session, "Generating", action, edit=False, asked=asked)

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

        yield from self.work(session, "Editing", action, edit=True, asked=asked)

    def only(self, data: Fields) -> Iterator[Any]:
        """Edit once more, but only in the regions of the new words."""
        session, asked = self.events.read(data)

        def action(watch: Any) -> None:
            form = replace(asked.form, target=session.shown.prompt, blend=suggestions.swapped(session))
            self.source_of(session, asked, watch)
            session.edit(form, watch)

        yield from self.work(session, "Editing", action, edit=True, controls=True)

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

        yield from self.work(session, "Making the grid", action, edit=True, asked=asked)

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
        wanted = asked.settings
        if session.tree.base is not None:
            base = session.base
            recipe, picture = base.recipe, base.recipe.root.picture
            if _same(session, asked, wanted):
                return
            if picture is not None:
                same = recipe.size if base.model == session.model else recipe.size and "auto"
                more = replace(wanted, size=wanted.size or same)
                session.bring(picture, asked.prompt, asked.seed, asked.steps, watch, more, asked.spec)
                return
        session.generate(asked.prompt, asked.seed, asked.steps, watch, wanted)

    def work(
        self, session: Session, what: str, action: Callable[[Any], Any], *, edit: bool, controls: bool = False,
        asked: Asked | None = None,
    ) -> Iterator[Any]:  # fmt: skip
        """Run with a preview and a progress bar. An error only changes the status line. `asked`: the fields that the
        run reads, which are no drafts from then on."""
        events, p, work = self.events, self.parts, Work(session, action)
        idle = {p.stop: gr.update(interactive=False)}
        if given_up(session):
            yield {p.status: note_html(STOPPED), **idle}
            return
        session.gone = gone()
        if asked is not None:
            session.filled = {name: asked[name] for name in TEXTS}
        begun = gr.update(interactive=True)
        yield {events.session: session, p.status: note_html(f"{what} …"), p.stop: begun}
        try:
            for look in work:
                changes: dict[Any, Any] = {p.status: progress_html(look.done, look.count, what)}
                if look.latents is not None:
                    changes |= view.preview(events, session, look.latents, edit)
                yield changes
        except Cancelled:
            back = view.everything(events, session) if session.tree.shown else {p.picture: None}
            yield {p.status: note_html(STOPPED), **back, **idle}
        except Exception as error:
            back = view.everything(events, session) if session.tree.shown else {}
            yield {p.status: note_html(page_sentence(error), "error"), **back, **idle}
        else:
            said = f"{work.value} " if isinstance(work.value, str) else ""
            note = {p.status: note_html(said + view.summary(session))}
            yield {events.session: session, **note, **view.everything(events, session, controls=controls), **idle}


def _same(session: Session, asked: Asked, wanted: Settings) -> bool:
    """Whether the image that edits start from was made with these fields."""
    base, network = session.base, session.studio.network(session.model)
    recipe, spec = base.recipe, None if base.recipe.root.picture is None else asked.spec
    guidance = network.defaults[1] if wanted.guidance is None else wanted.guidance
    own = recipe.size or network.default_size
    size = own if wanted.size is None and spec is not None else wanted.size or network.default_size
    made = (base.prompt, recipe.seed, recipe.steps, base.model, recipe.guidance, recipe.negative, recipe.truncate, own)
    given = (
        asked.prompt,
        asked.seed,
        asked.steps,
        session.model,
        guidance,
        wanted.negative or "",
        wanted.truncate,
        size,
    )
    return made == given and (spec is None or spec == recipe.inversion)

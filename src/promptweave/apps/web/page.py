"""The page's events: each calls the visitor's session and shows the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np
from gradio.themes import Soft
from PIL import Image

from promptweave.apps.web import api, view
from promptweave.apps.web.fronts import Finding
from promptweave.apps.web.layout import Parts, lay_out
from promptweave.apps.web.outbox import Outbox
from promptweave.apps.web.perceiving import Perceiving
from promptweave.apps.web.presence import gone
from promptweave.apps.web.session import Cancelled, Session
from promptweave.apps.web.settings import Form, Mask, about, shaped, spec_of
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.words import note_html, progress_html
from promptweave.apps.web.work import Work, sentence
from promptweave.editing.settings import Settings

ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1, "api_visibility": "private"}
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
LIVE = 14  # index of the checkbox "Update the edit ..." among the inputs of an edit
FETCH = "() => { setTimeout(() => document.querySelector('#written').click(), 100); }"  # once the button has its file


def theme() -> Any:
    """Teal on grey, with local fonts: nothing is downloaded."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "monospace"]
    return Soft(primary_hue="teal", neutral_hue="slate", font=fonts, font_mono=mono).set(
        button_primary_background_fill="#0f766e", button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#0f766e", button_primary_background_fill_hover_dark="#0d9488",
        button_primary_text_color="#ffffff", button_primary_text_color_dark="#ffffff",
        block_title_background_fill_dark="transparent", block_title_background_fill="transparent",
        block_title_text_color="*body_text_color", block_title_padding="0",
        block_title_text_weight="600", block_label_background_fill="*background_fill_primary",
        block_label_text_color="*body_text_color", block_label_background_fill_dark="*background_fill_primary",
        block_label_text_color_dark="*body_text_color", block_title_text_color_dark="*body_text_color",
        body_text_color_subdued="#475569", body_text_color_subdued_dark="#b6c2d1",
        body_background_fill="#f1f5f9", slider_color="#0f766e", slider_color_dark="#14b8a6",
        input_border_width="1px", input_border_color="#94a3b8", input_border_color_dark="#64748b",
        checkbox_border_width="1px", checkbox_border_color="#64748b", checkbox_border_color_dark="#94a3b8",
        checkbox_label_background_fill_selected="#0f766e", checkbox_label_background_fill_selected_dark="#0f766e",
        checkbox_label_text_color_selected="#ffffff", checkbox_label_text_color_selected_dark="#ffffff",
        layout_gap="12px", block_padding="10px 12px",
    )  # fmt: skip


def build_page(studio: Studio, outbox: Outbox) -> gr.Blocks:
    """The whole page. What it keeps for its visitors is freed by a `Keeper`."""
    with gr.Blocks(title="promptweave", analytics_enabled=False, fill_width=True) as page:
        api.add(studio, outbox)  # first, so that its endpoints get their plain names
        session = gr.State(None)
        names = gr.State([])
        parts = lay_out(studio)
        Events(studio, parts, session, names, outbox).connect(page)
    return page


class Events:
    """The event handlers. Each takes the session state first and returns a component -> value mapping."""

    def __init__(self, studio: Studio, parts: Parts, session: gr.State, names: gr.State, outbox: Outbox) -> None:
        self.studio, self.parts, self.session, self.names, self.outbox = studio, parts, session, names, outbox

    def connect(self, page: gr.Blocks) -> None:
        """Attach the handlers."""
        p = self.parts
        asked = [self.session, self.names, p.model, p.prompt, p.seed, p.steps, p.inversion, p.tuning]
        edited = [*asked, p.target, p.cross, p.self, p.joint, p.threshold, p.blend, p.mask, p.live, p.anew,
                  p.subtract, *p.pool]  # fmt: skip
        windows = [p.cross, p.self, p.joint, p.kept, p.single, p.crosses, p.selves, p.inversion, p.tuning, p.about]
        shown = [self.session, self.names, p.status, p.picture, p.compare, p.look, p.heat, p.history, p.details,
                 p.save, p.recipe, p.report, p.mask, p.prompt, p.seed, p.steps, p.target, p.threshold, p.blend, p.match,
                 p.grid, p.model, p.anew, p.subtract, p.front, p.plot, *windows, *p.pool]  # fmt: skip
        words = [self.session, self.names, p.match, p.blend, p.subtract, *p.pool]
        page.load(self.open, [p.model, p.prompt, p.target], [*words, *windows], **AT_ONCE)
        gr.on([p.generate.click, p.prompt.submit], self.generate, asked, shown, show_progress="hidden", **ONE_AT_A_TIME)
        gr.on([p.apply.click, p.target.submit], self.edit, edited, shown, show_progress="hidden", **ONE_AT_A_TIME)
        sliders = [s.release for s in (*p.pool, p.cross, p.self, p.joint, p.threshold)]
        gr.on([*sliders, p.blend.input, p.subtract.input], self.slide, edited, shown, show_progress="hidden",
              trigger_mode="always_last", **ONE_AT_A_TIME)  # fmt: skip
        typed = [self.session, self.names, p.model, p.prompt, p.target, p.blend, p.subtract, *p.pool]
        gr.on([p.prompt.change, p.target.change], self.type, typed, words, trigger_mode="always_last", **AT_ONCE)
        p.model.input(self.choose, typed, [*words, *windows, p.steps], **AT_ONCE)
        p.stop.click(self.stop, [self.session], [p.status], **AT_ONCE)
        p.inversion.input(self.invert, [p.inversion], [p.about, p.tuning], **AT_ONCE)
        p.upload.upload(
            self.upload, [*asked, p.shape, p.keep, p.upload], shown, show_progress="hidden", **ONE_AT_A_TIME
        )
        p.sweep.click(self.sweep, [*edited, p.crosses, p.selves], shown, show_progress="hidden", **ONE_AT_A_TIME)
        Finding(self).connect(edited, shown, ONE_AT_A_TIME, AT_ONCE)
        p.grid.select(self.adopt, [self.session], shown, show_progress="hidden", **ONE_AT_A_TIME)
        p.look.input(self.look, [self.session, p.look], [p.heat, p.status], **AT_ONCE)
        p.history.select(self.go, [self.session], shown, **AT_ONCE)
        p.undo.click(self.undo, [self.session], shown, **AT_ONCE)
        made = p.report.click(self.report, [self.session], [p.written, p.status], **AT_ONCE)
        made.success(None, js=FETCH)
        p.further.click(self.further, [self.session], shown, **AT_ONCE)
        Perceiving(self.studio, p).connect(**ONE_AT_A_TIME)

    def open(self, model: str, prompt: str, target: str) -> dict[Any, Any]:
        """On load: start a new session."""
        session = Session(self.studio, model)
        shown = view.words(self, session, [], [], prompt, target, (), ())
        return {self.session: session, **shown, **view.windows(self, session)}

    def generate(
        self, session: Any, names: Any, model: Any, prompt: Any, seed: Any, steps: Any, inversion: Any, tuning: Any
    ) -> Iterator[Any]:
        session = self.session_of(session, model)

        def action(watch: Any) -> None:
            session.generate(prompt, int(seed or 0), int(steps), watch)

        yield from self.work(session, "Generating", action, edit=False)

    def edit(
        self, session: Any, names: Any, model: Any, prompt: Any, seed: Any, steps: Any, inversion: Any, tuning: Any,
        *given: Any,
    ) -> Iterator[Any]:  # fmt: skip
        session = self.session_of(session, model)
        settings = self.settings_of(names, given)

        def action(watch: Any) -> None:
            self.source_of(session, prompt, int(seed or 0), int(steps), watch, inversion, tuning)
            session.edit(settings, watch)

        yield from self.work(session, "Editing", action, edit=True)

    def slide(self, session: Any, *given: Any) -> Iterator[Any]:
        """On releasing a slider: re-run the edit, if there is one."""
        live = given[LIVE]
        if not live or not isinstance(session, Session) or session.tree.shown is None or session.shown.parent is None:
            yield {self.parts.status: note_html("Apply the edit to see the change.")}
            return
        yield from self.edit(session, *given)

    def sweep(
        self, session: Any, names: Any, model: Any, prompt: Any, seed: Any, steps: Any, inversion: Any, tuning: Any,
        *given: Any,
    ) -> Iterator[Any]:  # fmt: skip
        session, (*edited, crosses, selves) = self.session_of(session, model), given
        settings = self.settings_of(names, edited)

        def action(watch: Any) -> None:
            columns, rows = view.numbers(crosses), view.numbers(selves)
            self.source_of(session, prompt, int(seed or 0), int(steps), watch, inversion, tuning)
            session.sweep(settings, columns, rows, watch)

        yield from self.work(session, "Making the grid", action, edit=True)

    def adopt(self, session: Any, event: gr.SelectData) -> Iterator[Any]:
        session = self.session_of(session)
        yield from self.work(
            session,
            "Adopting the settings",
            lambda watch: session.adopt(int(event.index), watch),
            edit=True,
            controls=True,
        )

    def upload(
        self, session: Any, names: Any, model: Any, prompt: Any, seed: Any, steps: Any, inversion: Any, tuning: Any,
        shape: Any, keep: Any, path: Any,
    ) -> Iterator[Any]:  # fmt: skip
        """Restore a PNG saved by promptweave; make any other image the source."""
        session = self.session_of(session, model)

        def action(watch: Any) -> str:
            more, spec = shaped(shape, bool(keep)), spec_of(inversion, tuning)
            return session.open(path, prompt, int(seed or 0), int(steps), watch, more, spec)[1]

        yield from self.work(session, "Opening", action, edit=False, controls=True)

    def invert(self, inversion: Any) -> Any:
        """On choosing an inversion: what it does, and the options that it has."""
        return {self.parts.about: about(inversion), self.parts.tuning: ""}

    def stop(self, session: Any) -> Any:
        """Stop the run at its next step."""
        if isinstance(session, Session):
            session.stop.set()
        return gr.skip()

    def type(
        self, session: Any, names: Any, model: str, prompt: str, target: str, blend: Any, subtract: Any, *pool: Any
    ) -> Any:
        return view.words(self, self.session_of(session, model), names, pool, prompt, target, blend, subtract)

    def choose(self, session: Any, names: Any, model: str, *given: Any) -> Any:
        """On changing the model: show its words, its windows and its number of steps."""
        session = self.session_of(session, model)
        steps = {self.parts.steps: self.studio.steps(model)}
        return {**self.type(session, names, model, *given), **view.windows(self, session), **steps}

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

    def source_of(
        self, session: Session, prompt: str, seed: int, steps: int, watch: Any, inversion: Any, tuning: Any
    ) -> None:
        """Generate the source first, unless the one on the page matches the fields."""
        if session.tree.base is not None:
            base = session.base
            picture = base.recipe.root.picture
            spec = None if picture is None else spec_of(inversion, tuning)
            made = (base.prompt, base.recipe.seed, base.recipe.steps, base.model, spec and base.recipe.inversion)
            if made == (prompt, seed, steps, session.model, spec):
                return
            if picture is not None:
                size = base.recipe.size if base.model == session.model else base.recipe.size and "auto"
                session.bring(picture, prompt, seed, steps, watch, Settings(size=size), spec)
                return
        session.generate(prompt, seed, steps, watch)

    def settings_of(self, names: Sequence[str], given: Sequence[Any]) -> Form:
        target, cross, self_attention, joint, threshold, blend, mask, _, anew, subtract, *pool = given
        count = len(self.parts.strengths)
        strengths, starts, ends = pool[:count], pool[count : 2 * count], pool[2 * count :]
        spans = dict(zip(names, zip(starts, ends, strict=True), strict=False))
        return Form(
            target or "", cross, self_attention, joint, weights=dict(zip(names, strengths, strict=False)),
            windows={word: span for word, span in spans.items() if span != (0, 1)}, blend=tuple(blend or ()),
            threshold=threshold, mask=painted(mask), anew=bool(anew), subtract=tuple(subtract or ()),
        )  # fmt: skip

    def work(
        self, session: Session, what: str, action: Callable[[Any], Any], *, edit: bool, controls: bool = False
    ) -> Iterator[Any]:
        """Run with a preview and a progress bar. An error only changes the status line."""
        p, work = self.parts, Work(session, action)
        session.gone = gone()
        yield {self.session: session, p.status: note_html(f"{what} …")}
        try:
            for look in work:
                changes: dict[Any, Any] = {p.status: progress_html(look.done, look.count, what)}
                if look.latents is not None:
                    changes |= view.preview(self, session, look.latents, edit)
                yield changes
        except Cancelled:
            back = view.everything(self, session) if session.tree.shown else {p.picture: None}
            yield {p.status: note_html("Stopped. Nothing was changed."), **back}
        except Exception as error:
            back = view.everything(self, session) if session.tree.shown else {}
            yield {p.status: note_html(sentence(error), "error"), **back}
        else:
            said = f"{work.value} " if isinstance(work.value, str) else ""
            note = {p.status: note_html(said + view.summary(session))}
            yield {self.session: session, **note, **view.everything(self, session, controls=controls)}


def painted(drawn: Any) -> Mask | None:
    """The painted region as zeros and ones, at most 256 cells a side; None if nothing is painted."""
    layers = [layer for layer in (drawn or {}).get("layers", []) if layer is not None]
    if not layers:
        return None
    alpha = np.max([np.asarray(layer.convert("RGBA"))[..., 3] for layer in layers], 0)
    if not alpha.any():
        return None
    small = Image.fromarray(alpha)
    small.thumbnail((256, 256))
    return tuple(tuple(float(v) for v in row) for row in (np.asarray(small) > 127))

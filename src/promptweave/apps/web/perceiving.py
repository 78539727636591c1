"""The tab in which a picture is dropped: its segments, whose words can be clicked, what a phrase means, and depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from promptweave.apps.web.page_errors import page_sentence
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.uploads import read_upload
from promptweave.apps.web.words import note_html
from promptweave.perception.perceive import Perceived, perceive

SEGMENTS, PHRASE, DEPTH = "Segments", "A phrase", "Depth"
TASKS = {SEGMENTS: "segment", PHRASE: "refer", DEPTH: "depth"}


def perceiving(n: dict[str, Any]) -> None:
    """The components of the tab."""
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            n["scene"] = gr.Image(
                label="Drop a picture", type="filepath", sources=["upload"], height=260, elem_id="scene", buttons=[]
            )
            n["question"] = gr.Radio(list(TASKS), value=SEGMENTS, label="What to see", elem_id="question")
            n["phrase"] = gr.Textbox(label="Phrase, such as the red car", elem_id="phrase", max_length=200)
            n["found"] = gr.CheckboxGroup([], label="Click words to see them alone", elem_id="found",
                                          elem_classes="chips")  # fmt: skip
        n["seen"] = gr.Image(
            label="What the network sees", elem_id="seen", interactive=False, height=440, scale=3, min_width=260,
            buttons=["fullscreen"], format="png",
        )  # fmt: skip


class Perceiving:
    """The events of the tab. Nothing is kept between them."""

    def __init__(self, studio: Studio, parts: Any) -> None:
        self.studio, self.parts = studio, parts

    def connect(self, **how: Any) -> None:
        """Attach the handlers."""
        p = self.parts
        asked = [p.model, p.scene, p.question, p.phrase]
        shown = [p.seen, p.found, p.status]
        gr.on([p.scene.upload, p.question.input, p.phrase.submit], self.look, asked, shown, **how)
        p.found.input(self.chosen, [*asked, p.found], shown, **how)

    def look(self, model: str, path: str | None, question: str, phrase: str | None) -> dict[Any, Any]:
        """The answer over the picture, and the words that were found."""
        p = self.parts
        if not path:
            return {p.status: note_html("Drop a picture first."), p.seen: None, p.found: gr.update(choices=[])}
        try:
            found = self._answer(model, path, question, phrase)
        except Exception as error:
            return {p.status: note_html(page_sentence(error), "error"), p.seen: None, p.found: gr.update(choices=[])}
        words = list(found.shares)
        return {
            p.seen: found.drawn(), p.found: gr.update(choices=words, value=[]), p.status: note_html(said(found)),
        }  # fmt: skip

    def chosen(self, model: str, path: str | None, question: str, phrase: str | None, words: Sequence[str]) -> Any:
        """The picture with the regions of some words alone; all of them if none is chosen."""
        p = self.parts
        if not words or not path:
            return self.look(model, path, question, phrase)
        try:
            found = self._answer(model, path, question, phrase)
        except Exception as error:
            return {p.status: note_html(page_sentence(error), "error")}
        numbers = [found.classes.index(word) for word in words if word in found.classes]
        region = np.isin(found.answer, numbers)
        shown = Perceived("refer", found.picture, region, phrase=", ".join(words))
        return {p.seen: shown.drawn(), p.status: note_html(f"{', '.join(words)}: {region.mean():.0%} of the picture.")}

    def _answer(self, model: str, path: str, question: str, phrase: str | None) -> Perceived:
        picture = read_upload(path, self.studio.limits).picture
        network, task = self.studio.network(model), TASKS.get(question, "segment")
        said = phrase if task == "refer" else None

        def run() -> Perceived:
            with self.studio.lock:
                return perceive(picture, task, phrase=said, model=network)

        return self.studio.begin(run).result()


def said(found: Perceived) -> str:
    """The answer as a sentence."""
    if found.task == "segment":
        return ", ".join(f"{name} {share:.0%}" for name, share in found.shares.items()) + "."
    if found.task == "refer":
        return f"{found.phrase}: {found.answer.mean():.0%} of the picture."
    return f"From {found.answer.min():.1f} to {found.answer.max():.1f} metres."

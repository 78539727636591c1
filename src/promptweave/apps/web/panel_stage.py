"""The image on the page, the line above it, and what can be done with it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from promptweave.apps.web.history import SCRIPT
from promptweave.apps.web.words import note_html


def stage_panel(n: dict[str, Any]) -> None:
    """Add them to `n`, by name."""
    n["key"] = gr.Textbox("", visible="hidden", elem_id="key", label="key")
    n["clock"] = gr.Timer(1.0, active=False)
    n["alts"] = gr.HTML("", visible="hidden", elem_id="alts")
    n["status"] = gr.HTML(note_html("Ready."), elem_id="status")
    n["picture"] = gr.Image(
        label="Image", elem_id="picture", interactive=False, height=440, buttons=["fullscreen"], format="png"
    )
    n["compare"] = gr.ImageSlider(
        label="Before and after", elem_id="compare", interactive=False, visible=False, max_height=440, height=440,
        buttons=["fullscreen"], format="png",
    )  # fmt: skip
    n["only"] = gr.Button("Only the swapped words", elem_id="only", size="sm", visible=False)
    n["strip"] = gr.HTML("", elem_id="strip", js_on_load=SCRIPT, visible=False)
    with gr.Row(elem_id="actions"):
        n["undo"] = gr.Button("Undo", elem_id="undo", min_width=70, size="sm", interactive=False)
        n["further"] = gr.Button("Edit this further", elem_id="further", min_width=120, size="sm", interactive=False)
        n["save"] = gr.DownloadButton("Image (PNG)", elem_id="save", min_width=110, size="sm", interactive=False)
        n["recipe"] = gr.DownloadButton("Recipe (JSON)", elem_id="recipe", min_width=110, size="sm", interactive=False)
        n["report"] = gr.Button("Report (HTML)", elem_id="report", min_width=110, size="sm", interactive=False)
        n["written"] = gr.DownloadButton("Report", elem_id="written", visible="hidden")
    n["front"] = gr.Slider(
        1, 2, 1, step=1, label="Along the front: keeps the most to changes the most", visible=False, elem_id="front"
    )

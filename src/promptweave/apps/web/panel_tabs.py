"""The tabs below the image."""

from __future__ import annotations

from typing import Any

import gradio as gr

from promptweave.apps.web.history import EMPTY, SCRIPT
from promptweave.apps.web.perceiving import perceiving
from promptweave.apps.web.words import note_html

GRID = "0, 0.4, 0.8"
COLUMNS = {False: "Words (cross-attention): columns", True: "Source (joint attention)"}


def tabs_panel(n: dict[str, Any], joint: bool) -> None:
    """Add them to `n`, by name."""
    with gr.Tabs():
        with gr.Tab("Words"):
            with gr.Row():
                with gr.Column(scale=2, min_width=260):
                    n["look"] = gr.Radio([], label="Choose a word to see its attention map", elem_id="look",
                                         elem_classes="chips")  # fmt: skip
                    gr.Markdown("Bright pixels attend most to the word (mean over steps and layers).")
                n["heat"] = gr.Image(
                    label="Attention map of the word", elem_id="heat", interactive=False, height=380, scale=3,
                    buttons=["fullscreen"], min_width=260,
                )  # fmt: skip
        with gr.Tab("Sweep"):
            with gr.Row():
                n["crosses"] = gr.Textbox(GRID, label=COLUMNS[joint], min_width=180)
                n["selves"] = gr.Textbox(
                    "0, 0.4", label="Shapes (self-attention): rows", min_width=180, visible=not joint
                )
                n["sweep"] = gr.Button("Make the grid", elem_id="sweep", min_width=130)
            n["grid"] = gr.Gallery(
                label="Click an image to adopt its settings", elem_id="grid", columns=3,
                fit_columns=False, allow_preview=False,
                height="auto", object_fit="contain", interactive=False, buttons=[],
            )  # fmt: skip
        with gr.Tab("Front"):
            n["plot"] = gr.Image(
                label="What was tried, and the front", show_label=False, elem_id="plot", interactive=False,
                buttons=["fullscreen"], format="png",
            )  # fmt: skip
        with gr.Tab("History"):
            n["history"] = gr.HTML(EMPTY, elem_id="history", js_on_load=SCRIPT)
        with gr.Tab("Details"):
            n["details"] = gr.HTML(note_html("No image yet."), elem_id="details")
        with gr.Tab("Perceive"):
            perceiving(n)

"""The fields of the edit: the edited prompt, where it may change the image, and how strongly."""

from __future__ import annotations

from typing import Any

import gradio as gr

from promptweave.apps.web.choosing import method_choice, method_docs
from promptweave.apps.web.method_form import method_form
from promptweave.apps.web.offered import EDIT
from promptweave.apps.web.painting import painting
from promptweave.apps.web.presets import CHOICES, USUAL
from promptweave.apps.web.settings import bounds
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.word_sliders import word_sliders

TARGET = "a photo of a cat riding a car"
STEP = 0.05  # of sliders
KEPT = {  # by whether the model has joint attention
    False: "Fraction of the steps that use the source's words (cross-attention) and shapes (self-attention)",
    True: "Fraction of the steps that use the source's words and shapes (joint attention)",
}


def edit_panel(n: dict[str, Any], studio: Studio) -> None:
    """Add the method, the edited prompt and the method's form to `n`, by name."""
    method_choice(n, studio)
    n["target"] = gr.Textbox(
        TARGET, label="Edited prompt", lines=1, max_lines=8, elem_id="target", max_length=studio.limits.characters
    )
    with gr.Row():
        n["apply"] = gr.Button("Apply the edit", variant="primary", elem_id="apply", min_width=120)
        n["find"] = gr.Button("Find the strengths", elem_id="find", min_width=120)
    n["match"] = gr.HTML(elem_id="match", show_label=False)
    n["own"] = method_form(EDIT)


def regions_panel(n: dict[str, Any]) -> None:
    """Add the regions, by words or painted, and the method's documentation to `n`, by name."""
    n["blend"] = gr.CheckboxGroup(
        [], label="Restrict changes to the regions of these words", elem_id="blend", elem_classes="chips"
    )
    n["subtract"] = gr.CheckboxGroup(
        [], label="Keep the regions of these words as they are", elem_id="subtract", elem_classes="chips"
    )
    with gr.Accordion("Paint the region that may change", open=False) as n["painting"]:
        n["mask"] = painting(
            label="Painted region", type="pil", sources=(), transforms=(), layers=False, height=380,
            brush=gr.Brush(colors=["#0d9488"], color_mode="fixed", default_size=28), elem_id="mask",
            buttons=[], canvas_size=(512, 512),
        )  # fmt: skip
    method_docs(n)


def strengths_panel(n: dict[str, Any], joint: bool) -> None:
    """Add the sliders to `n`, by name."""
    n["preset"] = gr.Radio(
        list(CHOICES), value=USUAL, label="Strengths to begin with", elem_id="preset", elem_classes="chips"
    )
    n["heading"] = gr.Markdown("Strength of each word", elem_classes="section")
    n["strengths"] = word_sliders()
    n["kept"] = gr.Markdown(KEPT[joint], elem_classes="section", elem_id="kept")
    with gr.Row(elem_id="windows"):
        for name, option, label, shown in (
            ("cross", "cross", "Words", not joint), ("self", "self_attention", "Shapes", not joint),
            ("joint", "joint", "Source", joint),
        ):  # fmt: skip
            least = {"minimum": STEP} if name == "joint" else {}  # the only window must not be empty
            window = {**bounds(option), **least}
            n[name] = gr.Slider(step=STEP, label=label, min_width=190, elem_id=name, visible=shown, **window)
        edge = {**bounds("threshold"), "maximum": 1 - STEP}  # with threshold 1 the region would be empty
        n["threshold"] = gr.Slider(step=STEP, label="Region threshold", min_width=190, elem_id="threshold", **edge)
    n["live"] = gr.Checkbox(True, label="Update the edit when a slider is released", elem_id="live", container=False)

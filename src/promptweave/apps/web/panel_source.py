"""The fields of the source: its prompt, how it is generated, and images that are opened instead."""

from __future__ import annotations

from typing import Any

import gradio as gr

from promptweave.apps.web.settings import about, bounds
from promptweave.apps.web.studio import Studio

SOURCE = "a photo of a cat riding a bike"
SHAPES = (("crop its middle", "crop"), ("keep its shape", "auto"), ("pad", "pad"), ("stretch", "stretch"))


def source_panel(n: dict[str, Any], studio: Studio) -> None:
    """Add them to `n`, by name."""
    n["model"] = gr.Dropdown(
        list(studio.names), value=studio.names[0], label="Model", visible=len(studio.names) > 1, elem_id="model"
    )
    n["prompt"] = gr.Textbox(
        SOURCE, label="Source prompt", lines=1, max_lines=8, elem_id="prompt", max_length=studio.limits.characters
    )
    with gr.Row():
        seed = {**bounds("seed"), "value": 0, "maximum": studio.limits.seed}
        n["seed"] = gr.Number(label="Seed", precision=0, min_width=90, elem_id="seed", **seed)
        count = {**bounds("steps"), "value": studio.steps(studio.names[0]), "maximum": studio.limits.steps}
        n["steps"] = gr.Slider(step=1, label="Steps", min_width=150, scale=2, elem_id="steps", **count)
    with gr.Row():
        n["generate"] = gr.Button("Generate", variant="primary", elem_id="generate", min_width=120)
        n["stop"] = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80, interactive=True)
    with gr.Accordion("Open an image", open=False):
        _opening(n, studio)


def _opening(n: dict[str, Any], studio: Studio) -> None:
    gr.Markdown(
        "A PNG saved by promptweave restores its recipe. Any other image becomes the source: describe it in the "
        "source prompt."
    )
    n["upload"] = gr.File(
        label="PNG, JPEG or WebP", file_types=[".png", ".jpg", ".jpeg", ".webp"], type="filepath",
        elem_id="upload", height=110,
    )  # fmt: skip
    n["shape"] = gr.Radio(
        list(SHAPES), value="crop", label="An image of another shape than the model's", elem_id="shape"
    )
    n["keep"] = gr.Checkbox(
        False, label="Put edits back into the original at full size", elem_id="keep", container=False
    )
    gr.Markdown("Choose these two before you open the image. The inversion can be changed later.")
    with gr.Row():
        n["inversion"] = gr.Dropdown(
            studio.inversions(studio.names[0]), value="direct", label="Inversion",
            elem_id="inversion", min_width=200,
        )  # fmt: skip
        n["tuning"] = gr.Textbox("", label="Its options", elem_id="tuning", placeholder="-", min_width=140)
    n["about"] = gr.HTML(about("direct"), elem_id="about", show_label=False)

"""The fields of the source: its prompt, how it is generated, and images that are opened instead."""

from __future__ import annotations

from typing import Any

import gradio as gr

from promptweave.apps.web.presets import EXAMPLES
from promptweave.apps.web.settings import OWN_SIZE, about, bounds
from promptweave.apps.web.studio import Studio

SOURCE = "a photo of a cat riding a bike"
NO_EXAMPLE = "Choose an example ..."
MOST_GUIDANCE = 50
SHAPES = (("crop its middle", "crop"), ("keep its shape", "auto"), ("pad", "pad"), ("stretch", "stretch"))


def source_panel(n: dict[str, Any], studio: Studio) -> None:
    """Add them to `n`, by name."""
    with gr.Row():
        n["model"] = gr.Dropdown(
            list(studio.names), value=studio.names[0], label="Model", visible=len(studio.names) > 1, elem_id="model",
            min_width=140,
        )  # fmt: skip
        n["example"] = gr.Dropdown(
            [NO_EXAMPLE, *EXAMPLES], value=NO_EXAMPLE, label="Example", elem_id="example", min_width=140,
            interactive=True, container=False,
        )  # fmt: skip
    n["prompt"] = gr.Textbox(
        SOURCE, label="Source prompt", lines=1, max_lines=8, elem_id="prompt", max_length=studio.limits.characters
    )
    with gr.Row(elem_id="go"):
        seed = {**bounds("seed"), "value": 0, "maximum": studio.limits.seed}
        n["seed"] = gr.Number(label="Seed", precision=0, min_width=90, elem_id="seed", **seed)
        n["dice"] = gr.Button("Random seed", elem_id="dice", min_width=90)
        n["generate"] = gr.Button("Generate", variant="primary", elem_id="generate", min_width=110)
        n["stop"] = gr.Button("Stop", variant="stop", elem_id="stop", min_width=70, interactive=False)
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        _settings(n, studio)
    with gr.Accordion("Open an image", open=False, elem_id="opening"):
        _opening(n, studio)


def _settings(n: dict[str, Any], studio: Studio) -> None:
    first, limits = studio.names[0], studio.limits
    with gr.Row():
        count = {**bounds("steps"), "value": studio.steps(first), "maximum": limits.steps}
        n["steps"] = gr.Slider(step=1, label="Steps", min_width=150, scale=2, elem_id="steps", **count)
        n["guidance"] = gr.Number(
            studio.guidance(first), label="Guidance", minimum=0, maximum=MOST_GUIDANCE, step=0.5, min_width=90,
            elem_id="guidance",
        )  # fmt: skip
        n["images"] = gr.Number(
            1, label="Images", precision=0, minimum=1, maximum=limits.images, min_width=90, elem_id="images"
        )
    n["negative"] = gr.Textbox(
        "", label="Negative prompt", lines=1, max_lines=4, elem_id="negative", max_length=limits.characters
    )
    with gr.Row():
        n["size"] = gr.Dropdown(
            studio.sizes(first), value=OWN_SIZE, label="Size (height x width)", allow_custom_value=True,
            elem_id="size", min_width=150,
        )  # fmt: skip
        n["scheduler"] = gr.Dropdown(
            studio.schedulers(first), value=studio.network(first).scheduler, label="Scheduler", elem_id="scheduler",
            allow_custom_value=True,
            min_width=130,
        )  # fmt: skip
    n["truncate"] = gr.Checkbox(False, label="Cut prompts that are too long", elem_id="truncate", container=False)


def _opening(n: dict[str, Any], studio: Studio) -> None:
    gr.Markdown(
        "Drop an image here, or on the image on the page. A PNG saved by promptweave restores its recipe. Any other "
        "image becomes the source: describe it in the source prompt."
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

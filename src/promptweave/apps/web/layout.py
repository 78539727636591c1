"""The components of the page and their layout; `page` connects their events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from promptweave.apps.web.history import EMPTY, SCRIPT
from promptweave.apps.web.painting import painting
from promptweave.apps.web.perceiving import perceiving
from promptweave.apps.web.settings import about, bounds
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.words import note_html

STEP = 0.05  # of sliders
POOL = 10  # words with sliders
SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a cat riding a car"
HELP = "Write a prompt and generate it. Then change its words: only what the changed words name changes."
GRID = "0, 0.4, 0.8"
SHAPES = (("crop its middle", "crop"), ("keep its shape", "auto"), ("pad", "pad"), ("stretch", "stretch"))
KEPT = {  # by whether the model has joint attention
    False: "Fraction of the steps that use the source's words (cross-attention) and shapes (self-attention)",
    True: "Fraction of the steps that use the source's words and shapes (joint attention)",
}
COLUMNS = {False: "Words (cross-attention): columns", True: "Source (joint attention)"}


@dataclass(frozen=True, eq=False)
class Parts:
    """The components that events read or write, by name."""

    named: dict[str, Any]
    strengths: list[gr.Slider]
    starts: list[gr.Slider]
    ends: list[gr.Slider]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["named"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def pool(self) -> list[gr.Slider]:
        """The sliders of single words."""
        return [*self.strengths, *self.starts, *self.ends]


def lay_out(studio: Studio) -> Parts:
    """Source and edit on the left, the image and its sliders on the right, tabs below."""
    n: dict[str, Any] = {}
    joint = studio.joint(studio.names[0])
    gr.HTML(f"<h1>promptweave</h1><p>{HELP}</p>", elem_id="head")
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            _source(n, studio)
            _edit(n, studio)
        with gr.Column(scale=5, min_width=300):
            sliders = _picture(n, joint)
    _tabs(n, joint)
    return Parts(n, *sliders)


def _source(n: dict[str, Any], studio: Studio) -> None:
    steps = studio.steps(studio.names[0])
    n["model"] = gr.Dropdown(
        list(studio.names), value=studio.names[0], label="Model", visible=len(studio.names) > 1, elem_id="model"
    )
    n["prompt"] = gr.Textbox(
        SOURCE, label="Source prompt", lines=2, elem_id="prompt", max_length=studio.limits.characters
    )
    with gr.Row():
        seed = {**bounds("seed"), "value": 0, "maximum": studio.limits.seed}
        n["seed"] = gr.Number(label="Seed", precision=0, min_width=90, **seed)
        count = {**bounds("steps"), "value": steps, "maximum": studio.limits.steps}
        n["steps"] = gr.Slider(step=1, label="Steps", min_width=150, scale=2, **count)
    with gr.Row():
        n["generate"] = gr.Button("Generate", variant="primary", elem_id="generate", min_width=120)
        n["stop"] = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80, interactive=True)
    with gr.Accordion("Open an image", open=False):
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


def _edit(n: dict[str, Any], studio: Studio) -> None:
    n["target"] = gr.Textbox(
        TARGET, label="Edited prompt", lines=2, elem_id="target", max_length=studio.limits.characters
    )
    n["match"] = gr.HTML(elem_id="match", show_label=False)
    n["blend"] = gr.CheckboxGroup(
        [], label="Restrict changes to the regions of these words", elem_id="blend", elem_classes="chips"
    )
    n["subtract"] = gr.CheckboxGroup(
        [], label="Keep the regions of these words as they are", elem_id="subtract", elem_classes="chips"
    )
    with gr.Accordion("Paint the region that may change", open=False):
        n["mask"] = painting(
            label="Painted region", type="pil", sources=(), transforms=(), layers=False, height=380,
            brush=gr.Brush(colors=["#0d9488"], color_mode="fixed", default_size=28), elem_id="mask",
            buttons=[], canvas_size=(512, 512),
        )  # fmt: skip
        n["anew"] = gr.Checkbox(False, label="Make it anew from the edited prompt alone (inpainting)", elem_id="anew")
    with gr.Row():
        n["apply"] = gr.Button("Apply the edit", variant="primary", elem_id="apply", min_width=120)
        n["find"] = gr.Button("Find the strengths", elem_id="find", min_width=120)


def _picture(n: dict[str, Any], joint: bool) -> tuple[list[gr.Slider], list[gr.Slider], list[gr.Slider]]:
    n["status"] = gr.HTML(note_html("Ready."), elem_id="status")
    n["picture"] = gr.Image(
        label="Image", elem_id="picture", interactive=False, height=440, buttons=["fullscreen"], format="png"
    )
    n["compare"] = gr.ImageSlider(
        label="Before and after", elem_id="compare", interactive=False, visible=False, max_height=440, height=440,
        buttons=["fullscreen"], format="png",
    )  # fmt: skip
    with gr.Row():
        n["undo"] = gr.Button("Undo", elem_id="undo", min_width=70, size="sm")
        n["further"] = gr.Button("Edit this further", elem_id="further", min_width=120, size="sm")
        n["save"] = gr.DownloadButton("Image (PNG)", elem_id="save", min_width=110, size="sm", interactive=False)
        n["recipe"] = gr.DownloadButton("Recipe (JSON)", elem_id="recipe", min_width=110, size="sm", interactive=False)
        n["report"] = gr.Button("Report (HTML)", elem_id="report", min_width=110, size="sm", interactive=False)
        n["written"] = gr.DownloadButton("Report", elem_id="written", visible="hidden")
    n["front"] = gr.Slider(
        1, 2, 1, step=1, label="Along the front: keeps the most to changes the most", visible=False, elem_id="front"
    )
    gr.Markdown("Strength of each word", elem_classes="section")
    with gr.Row(elem_id="strengths"):
        strengths = [
            gr.Slider(-3, 5, 1, step=0.1, label="-", visible=False, min_width=190, elem_id=f"strength-{i}")
            for i in range(POOL)
        ]
    n["kept"] = gr.Markdown(KEPT[joint], elem_classes="section", elem_id="kept")
    with gr.Row(elem_id="windows"):
        for name, option, label, shown in (
            ("cross", "cross", "Words", not joint), ("self", "self_attention", "Shapes", not joint),
            ("joint", "joint", "Source", joint),
        ):  # fmt: skip
            window = {
                **bounds(option),
                **({"minimum": STEP} if name == "joint" else {}),
            }  # the only window must not be empty
            n[name] = gr.Slider(step=STEP, label=label, min_width=190, elem_id=name, visible=shown, **window)
        edge = {**bounds("threshold"), "maximum": 1 - STEP}  # with threshold 1 the region would be empty
        n["threshold"] = gr.Slider(step=STEP, label="Region threshold", min_width=190, elem_id="threshold", **edge)
    starts: list[gr.Slider] = []
    ends: list[gr.Slider] = []
    with gr.Accordion("Windows of single words", open=False, visible=not joint) as n["single"]:
        gr.Markdown("A word from 0 until 1 follows the slider for all words above.")
        for i in range(POOL):
            with gr.Row():
                for found, name, value in ((starts, "from", 0), (ends, "until", 1)):
                    found.append(
                        gr.Slider(0, 1, value, step=0.05, label="-", visible=False, min_width=140,
                                  elem_id=f"{name}-{i}")
                    )  # fmt: skip
    n["live"] = gr.Checkbox(True, label="Update the edit when a slider is released", elem_id="live", container=False)
    return strengths, starts, ends


def _tabs(n: dict[str, Any], joint: bool) -> None:
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

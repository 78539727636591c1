"""The components of the page and their layout; `page` connects their events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from promptweave.apps.web.panel_edit import edit_panel, regions_panel, strengths_panel
from promptweave.apps.web.panel_source import source_panel
from promptweave.apps.web.panel_stage import stage_panel
from promptweave.apps.web.panel_tabs import tabs_panel
from promptweave.apps.web.studio import Studio

HELP = "Write a prompt and generate it. Then change its words: only what the changed words name changes."
FIELDS = (
    "model", "prompt", "seed", "steps", "inversion", "tuning", "shape", "keep", "target", "cross", "self", "joint",
    "threshold", "blend", "subtract", "mask", "method", "own", "live", "strengths", "crosses", "selves", "guidance",
    "images", "negative", "size", "scheduler", "truncate",
)  # fmt: skip
DRAFTS = tuple(name for name in FIELDS if name != "mask")  # what a page that is loaded anew shows again
SHOWN = (
    "status", "picture", "compare", "look", "heat", "history", "details", "save", "recipe", "report", "match", "grid",
    "front", "plot", "kept", "about", "docs", "painting", "find", "heading", "undo", "further", "stop", "only", "strip",
    "alts", "preset", "key",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Parts:
    """The components that events read or write, by name."""

    named: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["named"][name]
        except KeyError:
            raise AttributeError(name) from None

    def some(self, names: Iterable[str]) -> list[Any]:
        """The components of these names."""
        return [self.named[name] for name in names]

    @property
    def fields(self) -> list[Any]:
        """What a run reads."""
        return self.some(FIELDS)

    @property
    def typed(self) -> list[Any]:
        """What is read while a visitor types: all but the painted region, which is sent apart."""
        return self.some(name for name in FIELDS if name != "mask")

    @property
    def shown(self) -> list[Any]:
        """All that may change with the image on the page."""
        return self.some([*FIELDS, *SHOWN])


def lay_out(studio: Studio) -> Parts:
    """Prompts and sliders on the left, the image and the tabs on the right."""
    n: dict[str, Any] = {}
    joint = studio.joint(studio.names[0])
    gr.HTML(f"<h1>promptweave</h1><p>{HELP}</p>", elem_id="head")
    with gr.Row(equal_height=False, elem_id="main"):
        with gr.Column(scale=4, min_width=300, elem_id="left"):
            with gr.Column(elem_id="ask"):
                source_panel(n, studio)
                edit_panel(n, studio)
            with gr.Column(elem_id="regions"):
                regions_panel(n)
            with gr.Column(elem_id="panel"):
                strengths_panel(n, joint)
        with gr.Column(scale=5, min_width=300, elem_id="right"):
            with gr.Column(elem_id="stage"):
                stage_panel(n)
            with gr.Column(elem_id="below"):
                tabs_panel(n, joint)
    return Parts(n)

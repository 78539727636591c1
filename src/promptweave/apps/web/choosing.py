"""The choice of a method on the page: its form, its documentation, and which other parts of the page it reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from promptweave.apps.declared import ROOT
from promptweave.apps.web.method_form import filled
from promptweave.apps.web.offered import EDIT, TARGETS, Offered, methods, offered
from promptweave.apps.web.session import Session
from promptweave.apps.web.studio import Studio

DOCS = next((path for path in (ROOT / "docs" / "methods", ROOT.parents[1] / "docs" / "methods") if path.is_dir()), None)


def method_choice(n: dict[str, Any], studio: Studio) -> None:
    """Add the choice to `n`, by name."""
    n["method"] = gr.Dropdown(choices(studio, studio.names[0]), value=EDIT, label="Method", elem_id="method")


def method_docs(n: dict[str, Any]) -> None:
    """Add the documentation of the chosen method to `n`, by name."""
    with gr.Accordion("Documentation of this method", open=False, elem_id="docs"):
        n["docs"] = gr.Markdown(documentation(EDIT), elem_id="docs-text")


def choices(studio: Studio, model: str) -> list[tuple[str, str]]:
    """The methods that fit a model: what is shown, and the name."""
    return [(one.label, one.name) for one in offered(studio.network(model))]


def chosen(p: Any, session: Session, name: str, values: dict[str, Any] | None = None) -> dict[Any, Any]:
    """Updates for a method whose fields hold these texts: its form, and the parts of the page that it reads."""
    known = choices(session.studio, session.model)
    name = name if name in [one for _, one in known] else EDIT
    method, joint = methods()[name], session.studio.joint(session.model)
    parts, further = method.parts, method.prompts == TARGETS
    windows = name == EDIT
    shown = {
        p.target: further, p.match: further, p.blend: "blend" in parts, p.subtract: "subtract" in parts,
        p.painting: "mask" in parts, p.find: windows, p.heading: "weights" in parts, p.strengths: "weights" in parts,
        p.kept: windows, p.cross: windows and not joint, p.self: windows and not joint, p.joint: windows and joint,
        p.threshold: "threshold" in parts, p.preset: windows,
    }  # fmt: skip
    return {
        p.method: gr.update(choices=known, value=name), p.own: filled(name, values), p.docs: documentation(name),
        **{part: gr.update(visible=visible) for part, visible in shown.items()},
    }  # fmt: skip


class Choosing:
    """The event of the choice. `events`: those of the page (`page.Events`)."""

    def __init__(self, events: Any) -> None:
        self.events = events

    def connect(self, typed: set[Any], shown: list[Any], at_once: dict[str, Any]) -> None:
        """Attach the handler. `typed`: the fields; `shown`: what it may change."""
        self.events.parts.method.input(self.choose, typed, shown, **at_once)

    def choose(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """On choosing a method: its form, empty."""
        session, asked = self.events.read(data)
        return chosen(self.events.parts, session, asked["method"])


@cache
def documentation(name: str) -> str:
    """The documentation of a method in Markdown, without its pictures and the links to other pages."""
    path = page_of(methods()[name])
    if path is None:
        return methods()[name].about
    text = re.sub(r"^(!\[.*|\*.*\*)\n", "", path.read_text("utf-8"), flags=re.M)
    return re.sub(r"\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", text)


def page_of(method: Offered) -> Path | None:
    """The documentation page that names a method's control, or its kind of edit, the most often."""
    names = re.compile(rf"\b{method.control.__name__}\b|--kind {method.name}\b")
    texts = {path: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))} if DOCS else {}
    found = [(len(names.findall(text)), path) for path, text in texts.items()]
    count, path = max(found, default=(0, None), key=lambda one: one[0])
    return path if count else None

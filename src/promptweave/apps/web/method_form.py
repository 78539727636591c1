"""The fields of a method as an HTML form, made from its declared options; method_form.js reads and fills it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, get_args, get_origin

import gradio as gr

from promptweave.apps.flags import shown
from promptweave.apps.forms import FORMS, form_of
from promptweave.apps.web.offered import Offered, label_of, lines, methods
from promptweave.core.fields import Listed
from promptweave.editing.values import numeric, whole

SCRIPT = (Path(__file__).parent / "method_form.js").read_text("utf-8")
BOXES = "WORD=LEFT,TOP,RIGHT,BOTTOM"
ADVANCED = "Advanced"


def method_form(name: str) -> gr.HTML:
    """The form of the chosen method. Its value is {"method": name, "values": {field: text or true}}."""
    return gr.HTML(
        filled(name), html_template="${forms[value.method] || ''}", forms=forms(), js_on_load=SCRIPT, elem_id="own",
        show_label=False,
    )  # fmt: skip


def filled(name: str, values: dict[str, Any] | None = None) -> Any:
    """The value of the form of a method whose fields hold these texts; the others are at their defaults."""
    return {"method": name, "values": values or {}}


def read_form(value: Any) -> tuple[str, dict[str, Any]]:
    """The method and its fields as a browser sent them. Raises ValueError for anything else."""
    name = value.get("method") if isinstance(value, dict) else None
    values = value.get("values") if isinstance(value, dict) else None
    if not isinstance(name, str) or not isinstance(values, dict):
        raise ValueError("The form of a method has its name and its fields. This one has not. Reload the page.")
    if not all(isinstance(one, str | bool) for one in values.values()):
        raise ValueError("A field of a method is text, or checked or not. Received something else. Reload the page.")
    return name, values


@cache
def forms() -> dict[str, str]:
    """The form of every method."""
    return {name: form_html(method) for name, method in methods().items()}


def form_html(method: Offered) -> str:
    """The form of a method: the fields that matter, then the advanced ones, folded."""
    first = [one for one in method.fields if one.option.group != ADVANCED]
    more = [one for one in method.fields if one.option.group == ADVANCED]
    if method.name == "edit":  # its parts of the page say what matters
        first, more = [], [*first, *more]
    folded = f"<details><summary>More options</summary>{_fields(method, more)}</details>" if more else ""
    files = ", ".join(f"<code>{escape(one.flag)}</code>" for one in method.absent)
    absent = f'<p class="pw-hint">On the command line also {files}.</p>' if files else ""
    return f'<div class="pw-form" data-method="{method.name}">{_fields(method, first)}{folded}{absent}</div>'


def _fields(method: Offered, listed: Sequence[Listed]) -> str:
    return "".join(_field(one, required=one.name in method.needed) for one in listed)


def _field(listed: Listed, *, required: bool) -> str:
    """A labelled input with its help text; its placeholder is the default."""
    name, form = listed.name, form_of(listed)
    about, usual = f"own-{name}-help", shown(listed, form)
    common = f'id="own-{name}" data-field="{name}" aria-describedby="{about}"' + (" required" if required else "")
    label = f'<label for="own-{name}">{escape(label_of(listed))}{" *" if required else ""}</label>'
    hint = f" One per line: {escape(listed.option.metavar or form.metavar)}." if lines(listed) else ""
    told = f'<small id="{about}">{escape(listed.option.help)}{hint}</small>'
    if form.hint is bool:
        checked = " data-usual" if listed.default is True else ""
        return f'<div class="pw-field pw-check"><input type="checkbox" {common}{checked}>{label}{told}</div>'
    if get_origin(listed.type) is not None and not lines(listed) and (choices := _choices(listed.type)):
        options = "".join(f'<option value="{escape(one)}">{escape(one)}</option>' for one in choices)
        return (
            f'<div class="pw-field">{label}<select {common}><option value="">as usual ({escape(usual or "-")})</option>'
            f"{options}</select>{told}</div>"
        )
    if form.metavar == BOXES:
        return (
            f'<div class="pw-field">{label}<div class="pw-draw" data-draw="{name}"></div>'
            f'<textarea rows="2" {common} placeholder="dog=0,0.3,0.5,1"></textarea>{told}</div>'
        )
    if lines(listed):
        parts = usual.split(", ")
        area = f'<textarea rows="{min(3, len(parts))}" {common} placeholder="{escape(chr(10).join(parts))}"></textarea>'
        return f'<div class="pw-field">{label}{area}{told}</div>'
    return f'<div class="pw-field">{label}{_text(listed, common, usual)}{told}</div>'


def _text(listed: Listed, common: str, usual: str) -> str:
    """One number, with a slider if it has two bounds; or a text."""
    option = listed.option
    bounded = option.low is not None and option.high is not None
    if not numeric(listed) or form_of(listed).metavar not in ("NUMBER", "INTEGER"):
        text = f'<input type="text" {common} placeholder="{escape(usual)}">'
        return _slid(listed, text, usual) if bounded and usual and ":" not in usual and listed.type in _SPANS else text
    step = 1 if whole(listed) else "any"
    low = "" if option.low is None else f' min="{option.low}"'
    high = "" if option.high is None else f' max="{option.high}"'
    number = f'<input type="number" step="{step}"{low}{high} {common} placeholder="{escape(usual)}">'
    return _slid(listed, number, usual) if bounded and usual and step != 1 else number


def _slid(listed: Listed, field: str, usual: str) -> str:
    """A field with a slider beside it."""
    option = listed.option
    slider = (
        f'<input type="range" min="{option.low}" max="{option.high}" step="0.01" data-slides="{listed.name}" '
        f'data-usual="{escape(usual)}" aria-label="{escape(label_of(listed))}, as a slider">'
    )
    return f'<span class="pw-slide">{slider}{field}</span>'


_SPANS = {kind for kind, form in FORMS.items() if "BEGIN:END" in form.metavar}


def _choices(kind: Any) -> tuple[str, ...]:
    """The texts of a Literal."""
    found = get_args(kind)
    return found if found and all(isinstance(one, str) for one in found) else ()

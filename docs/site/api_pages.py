"""The reference: every public name with its signature, docstring, options and methods, as pages for Sphinx."""

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass
from typing import Any

import promptweave as pw
from promptweave.core.fields import options_of
from promptweave.inversion import KNOWN, CannotInvert, Inversion, Inverted

PAGES = {
    "editing": "Edit, record, sweep, replay",
    "methods": "Methods: the controls",
    "inversion": "Inversions",
    "maps": "Maps and views",
    "models": "Models and sampling",
    "core": "What a control is written with",
    "finding": "The strength finder",
    "perception": "Perception",
    "translation": "Net2Net",
    "benchmarks": "Benchmarks",
}
ROOMS = {"sampling": "models", "words": "core", "evaluate": "benchmarks"}  # rooms whose names stand on another's page


def page_of(value: Any) -> str:
    """The page on which a public name stands: that of the room where it is defined."""
    room = value.__module__.split(".")[1]
    return ROOMS.get(room, room)


def public() -> dict[str, Any]:
    """The public names and what they are; rooms are no names, but inversions are listed by that of their room."""
    found = {name: getattr(pw, name) for name in dir(pw) if not name.startswith("_")}
    found |= {f"inversion.{kind.__name__}": kind for kind in (*KNOWN.values(), Inversion, Inverted, CannotInvert)}
    return {name: value for name, value in found.items() if inspect.isclass(value) or inspect.isfunction(value)}


def signature_of(value: Any) -> str:
    """The parameters with their defaults, without types."""
    try:
        found = inspect.signature(value)
    except ValueError:
        return "()"
    shown = [
        parameter.replace(annotation=inspect.Parameter.empty, default=_shown(parameter.default))
        for parameter in found.parameters.values()
        if parameter.name != "self"
    ]
    return str(found.replace(parameters=shown, return_annotation=inspect.Signature.empty))


class _Plain:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _shown(default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return default
    text = repr(default)
    return _Plain("..." if "<" in text or len(text) > 60 else text)


def paragraphs(value: Any) -> str:
    """The docstring as Markdown; its examples become code blocks."""
    text = inspect.getdoc(value) or ""
    return re.sub(r"((?:^>>>.*\n?(?:^(?!>>>|\s*$).*\n?)*)+)", r"```python\n\1\n```\n", text + "\n", flags=re.M)


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def options(kind: type) -> str:
    """The fields that users set, from the same list as the command line."""
    if not is_dataclass(kind) or not (listed := options_of(kind)):
        return ""
    defaults = ["required" if one.required else f"`{cell(str(_shown(one.default)))}`" for one in listed]
    rows = [
        f"| `{one.name}` | {default} | {cell(one.option.help)} |" for one, default in zip(listed, defaults, strict=True)
    ]
    return "\n".join(["", "| field | default | |", "|---|---|---|", *rows, ""])


def members(kind: type) -> list[str]:
    """The public methods and properties that a class itself defines and documents."""
    parts: list[str] = []
    for name, value in vars(kind).items():
        if name.startswith("_"):
            continue
        inner = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if isinstance(value, property) and value.__doc__:
            parts.append(f":::{{py:property}} {name}\n\n{paragraphs(value)}\n:::\n")
        elif inspect.isfunction(inner) and inner.__doc__:
            said = signature_of(inner) if not isinstance(value, classmethod) else signature_of(getattr(kind, name))
            parts.append(f":::{{py:method}} {name}{said}\n\n{paragraphs(inner)}\n:::\n")
    return parts


def entry(name: str, value: Any) -> str:
    """The entry of one public name."""
    kind = "class" if inspect.isclass(value) else "function"
    lines = [f"## {name}\n", f"::::{{py:{kind}}} promptweave.{name}{signature_of(value)}\n", paragraphs(value)]
    if value in KNOWN.values():
        lines.append(
            f'As text: `inversion="{value.name}"`, on the command line `--inversion {value.name}`. {value.about}\n'
        )
    if inspect.isclass(value):
        lines += [options(value), *members(value)]
    return "\n".join([*lines, "::::\n"])


def reference() -> dict[str, str]:
    """The pages, by name; every public name is on one of them."""
    names: dict[str, list[tuple[str, Any]]] = {}
    for name, value in public().items():
        names.setdefault(page_of(value), []).append((name, value))
    unplaced = set(names) - set(PAGES)
    if unplaced:
        raise ValueError(f"Name the pages of the rooms {', '.join(sorted(unplaced))} in docs/site/api_pages.py.")
    return {
        page: f"# {title}\n\nFrom the docstrings, as `promptweave.NAME`.\n\n"
        + "\n".join(entry(name, value) for name, value in names[page])
        for page, title in PAGES.items()
        if page in names
    }

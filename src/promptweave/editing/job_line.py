"""One line of a file of jobs: from its JSON object to a checked recipe with a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptweave.core.fields import options_of
from promptweave.core.shown import shown
from promptweave.editing.checking import stand_in
from promptweave.editing.found_masks import Anywhere, finder_of
from promptweave.editing.masks import read_mask
from promptweave.editing.options import PromptToPrompt
from promptweave.editing.plan import bind, plan
from promptweave.editing.recipe import Recipe
from promptweave.editing.settings import Settings
from promptweave.editing.values import nearest, read_options, read_value, size_of
from promptweave.models.base import Model

OPTIONS, SETTINGS = ([listed.name for listed in options_of(kind)] for kind in (PromptToPrompt, Settings))
OTHERS: dict[str, Any] = {
    "source": str, "targets": Sequence[str] | str, "name": str, "image": str | None, "inversion": str | None
}  # fmt: skip
KEYS = [*OTHERS, *OPTIONS, *SETTINGS]
NAME = 255  # bytes of a folder's name


@dataclass(frozen=True)
class JobLine:
    """A named recipe; `line` is its line number in the file."""

    name: str
    recipe: Recipe
    line: int


def make_job(
    values: Mapping[str, Any], model: Model, number: int, folder: Path | None = None, *, check: bool = False
) -> JobLine:
    """A job from its JSON object. `folder`: what its paths are relative to. `check`: read only headers of images."""
    if not isinstance(values.get("source"), str):
        raise ValueError('A job has a "source", the prompt of the image, as text, and "targets".')
    for key in values:
        if key not in KEYS:
            raise ValueError(f"A job has no key {shown(key)}. {nearest(key, KEYS)}")
    given = {key: read_value(kind, values[key], key) for key, kind in OTHERS.items() if key in values}
    targets, name = given.get("targets", ()), name_of(values, number)
    options = {key: value for key, value in values.items() if key in OPTIONS and value is not None}
    settings = {key: value for key, value in values.items() if key in SETTINGS and value is not None}
    if finder_of(options.get("mask")) is not None:
        options["mask"] = Anywhere() if check else options["mask"]
    elif isinstance(options.get("mask"), str):
        options["mask"] = read_mask(_path(options["mask"], folder))
    if isinstance(settings.get("size"), str) and settings["size"] != "auto":
        settings["size"] = size_of(settings["size"], "size")
    image = None if given.get("image") is None else _path(given["image"], folder)
    recipe = plan(
        given["source"], (targets,) if isinstance(targets, str) else targets, model,
        options, Settings(**read_options(Settings, settings)),
        image=stand_in(image) if check and image is not None else image, inversion=given.get("inversion"),
    )  # fmt: skip
    bind(recipe, model)
    return JobLine(name, recipe, number)


def name_of(values: Mapping[str, Any], number: int) -> str:
    """The name of a job, that of its folder: the one given, else the number of its line."""
    name = read_value(str, values.get("name", f"{number:04d}"), "name")
    if name in ("", ".", "..") or any(c in name for c in "/\\") or not name.isprintable():
        raise ValueError(
            f"A job's name is also the name of its folder. Received {shown(name)}. Leave out slashes and control "
            "characters."
        )
    if len(name.encode()) > NAME:
        raise ValueError(f"A job's name is also the name of its folder: at most {NAME} bytes. Received {shown(name)}.")
    return name


def _path(text: str, folder: Path | None) -> Path:
    if "\0" in text:
        raise ValueError(f"A path cannot hold the character NUL. Received {shown(text)}.")
    return (folder or Path()) / Path(text).expanduser()

"""Everything a picture was made from, as data: written into every PNG and read back by `replay`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import promptweave.methods as methods
from promptweave.core.clock import Window
from promptweave.core.control import Control
from promptweave.editing.picture import Picture

FORMAT = 1
KEY = "promptweave"  # of the PNG's text chunk
CONTROLS: dict[str, type[Control]] = {
    name: found for name, found in vars(methods).items() if isinstance(found, type) and issubclass(found, Control)
}
INVERSIONS = ("direct", "ddim", "regularised")
PACKAGES = ("promptweave", "torch", "diffusers", "transformers", "numpy", "pillow")


class BrokenRecipe(ValueError):
    """A recipe that cannot be read."""


@dataclass(frozen=True)
class Recipe:
    """A run: prompts, seed, schedule, controls.

    `size` is (height, width) in pixels; None: the model's own. `truncate` allows prompts longer than the model reads.
    `chunks` and `prompt_weights` are how prompts are read (`load`). With `base` the source is not made anew: it is row
    `base_row` of that run, as its edits left it. With `picture` the source is that picture, which `inversion` leads
    back to noise (`start`).
    """

    source: str
    targets: tuple[str, ...] = ()
    controls: tuple[Control, ...] = ()
    seed: int = 0
    images: int = 1
    steps: int = 50
    guidance: int | float = 7.5
    size: tuple[int, int] | None = None
    negative: str = ""
    model: str = "toybox"
    truncate: bool = False
    scheduler: str = "ddim"
    base: Recipe | None = None
    base_row: int = 0
    chunks: int = 1
    prompt_weights: bool = False
    picture: Picture | None = None
    inversion: str = "direct"

    @property
    def root(self) -> Recipe:
        """The run that all stands on."""
        return self if self.base is None else self.base.root

    @property
    def prompts(self) -> tuple[str, ...]:
        """Source and targets."""
        return (self.source, *self.targets)

    def check(self) -> None:
        """Raise on values that no model could run."""
        for number, prompt in enumerate(self.prompts, 1):
            if not prompt.strip():
                raise ValueError(f"Prompt {number} is empty. Say what the picture is to show.")
        for name, low in (("seed", 0), ("images", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name} must be a whole number, at least {low}. Received {value!r}.")
        if self.inversion not in INVERSIONS:
            raise ValueError(f"inversion is one of {', '.join(INVERSIONS)}. Received {self.inversion!r}.")
        if self.root.picture is not None and self.images != 1:
            raise ValueError(f"A given picture is one picture: images must be 1. Received {self.images}.")

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "controls"}
        controls = [control_as_dict(c) for c in self.controls]
        base = None if self.base is None else self.base.as_dict()
        picture = None if self.picture is None else self.picture.as_text()
        return {**values, "targets": list(self.targets), "controls": controls, "base": base, "picture": picture}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `as_dict` gave."""
        try:
            controls = tuple(control_from_dict(c) for c in values["controls"])
            younger = ("scheduler", "base", "base_row", "chunks", "prompt_weights", "picture", "inversion")
            # which the first recipes lack
            values = {**{field.name: field.default for field in fields(cls) if field.name in younger}, **values}
            plain = {field.name: values[field.name] for field in fields(cls) if field.name != "controls"}
            size = tuple(plain["size"]) if plain["size"] else None
            base = None if plain["base"] is None else cls.from_dict(plain["base"])
            picture = None if plain["picture"] is None else Picture.from_text(plain["picture"])
            changes = {"targets": tuple(plain["targets"]), "size": size, "base": base, "picture": picture}
            return cls(**{**plain, **changes}, controls=controls)
        except (KeyError, TypeError) as error:
            raise BrokenRecipe(
                f"A recipe holds {', '.join(f.name for f in fields(cls))}. This one does not: {error}."
            ) from error


def control_as_dict(control: Control) -> dict[str, Any]:
    """The name of a control and its parameters."""
    values = {field.name: getattr(control, field.name) for field in fields(control)}
    return {"control": type(control).__name__, **{name: _plain(value) for name, value in values.items()}}


def control_from_dict(values: Mapping[str, Any]) -> Control:
    """The control that `control_as_dict` gave."""
    name = values["control"]
    if name not in CONTROLS:
        raise BrokenRecipe(f"There is no control {name!r}. There are {', '.join(CONTROLS)}.")
    return CONTROLS[name](**{key: _tuples(value) for key, value in values.items() if key != "control"})


def _plain(value: Any) -> Any:
    if isinstance(value, Window):
        return [value.start, value.end]
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def versions() -> dict[str, str]:
    """Versions of what made the picture."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def parse(text: str) -> dict[str, Any]:
    """The record in a PNG's text chunk or in a JSON file."""
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise BrokenRecipe(f"The recipe is not JSON: {error}.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise BrokenRecipe(f"A recipe of format {FORMAT} is needed. Update promptweave, or make the picture anew.")
    return record

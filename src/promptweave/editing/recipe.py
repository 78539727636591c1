"""Everything that determines an image, as data: written into every PNG and read back by `replay`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_type_hints

import promptweave.methods as methods
from promptweave.core.clock import Window
from promptweave.core.control import Control
from promptweave.core.registry import KNOWN, path_of
from promptweave.editing.picture import Picture
from promptweave.editing.values import BadValue, nearest, read_value, strict
from promptweave.sampling.loop import check_seed

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

    `size`: (height, width) in pixels, None for the model's own. `truncate` allows prompts longer than the model reads.
    `chunks` and `prompt_weights`: how prompts are read (see `load`). `base`: another run; the source is then its batch
    row `base_row`, as edited there, and not generated anew. `picture`: an input image; the source is then that image,
    turned into noise by the method `inversion` (see `start`).
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
        """The first run of a chain of edits."""
        return self if self.base is None else self.base.root

    @property
    def prompts(self) -> tuple[str, ...]:
        """Source and targets."""
        return (self.source, *self.targets)

    def check(self) -> None:
        """Raise ValueError for values that no model could run."""
        for number, prompt in enumerate(self.prompts, 1):
            if not prompt.strip():
                raise ValueError(f"Prompt {number} is empty. Describe the image.")
        check_seed(self.seed)
        if isinstance(self.images, bool) or not isinstance(self.images, int) or self.images < 1:
            raise ValueError(f"images must be a whole number, at least 1. Received {self.images!r}.")
        check_seed(self.seed + self.images - 1)  # of the last image
        if self.inversion not in INVERSIONS:
            raise ValueError(f"inversion is one of {', '.join(INVERSIONS)}. Received {self.inversion!r}.")
        if self.root.picture is not None and self.images != 1:
            raise ValueError(f"An input image has a single result: images must be 1. Received {self.images}.")

    def as_dict(self) -> dict[str, Any]:
        """The recipe as values that JSON can hold."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "controls"}
        controls = [control_as_dict(c) for c in self.controls]
        base = None if self.base is None else self.base.as_dict()
        picture = None if self.picture is None else self.picture.as_text()
        return {**values, "targets": list(self.targets), "controls": controls, "base": base, "picture": picture}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, allow: Sequence[str] = ()) -> Recipe:
        """The inverse of `as_dict`. `allow`: modules of your own controls that may be imported. Raises BrokenRecipe."""
        try:
            controls = tuple(control_from_dict(c, allow) for c in values["controls"])
            younger = ("scheduler", "base", "base_row", "chunks", "prompt_weights", "picture", "inversion")
            # the first version of recipes lacks these
            values = {**{field.name: field.default for field in fields(cls) if field.name in younger}, **values}
            plain = {field.name: values[field.name] for field in fields(cls) if field.name != "controls"}
            hints = _hints_of_recipe()
            plain |= {name: read_value(hint, plain[name], name) for name, hint in hints.items()}
            base = None if plain["base"] is None else cls.from_dict(plain["base"], allow=allow)
            picture = None if plain["picture"] is None else Picture.from_text(plain["picture"])
            return cls(**{**plain, "base": base, "picture": picture}, controls=controls)
        except BadValue as error:
            raise BrokenRecipe(f"This recipe cannot be read: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise BrokenRecipe(
                f"A recipe holds {', '.join(f.name for f in fields(cls))}. This one does not: {error}."
            ) from error


def _hints_of_recipe() -> dict[str, Any]:
    """The types of a recipe's fields that are plain values."""
    return {name: hint for name, hint in get_type_hints(Recipe).items() if name not in ("controls", "base", "picture")}


def control_as_dict(control: Control) -> dict[str, Any]:
    """A control as its name, the path of its class, and its parameters."""
    values = {field.name: _plain(getattr(control, field.name), field.name, control) for field in fields(control)}
    return {"control": type(control).__name__, "class": path_of(type(control)), **values}


def control_from_dict(values: Mapping[str, Any], allow: Sequence[str] = ()) -> Control:
    """The inverse of `control_as_dict`. `allow`: modules of your own controls that may be imported."""
    kind = _class_of(values["control"], values.get("class"), allow)
    hints = _hints(kind)
    known = [field.name for field in fields(kind)]
    given = {name: value for name, value in values.items() if name not in ("control", "class")}
    for name in given:
        if name not in known:
            raise BrokenRecipe(f"{kind.__name__} has no parameter {name!r}. {nearest(name, known)}")
    read = {name: read_value(hints.get(name, Any), value, f"{kind.__name__}.{name}") for name, value in given.items()}
    try:
        return kind(**read)
    except TypeError as error:  # a required parameter is missing
        raise BrokenRecipe(f"A recipe's {kind.__name__} cannot be made: {error}.") from error


def _class_of(name: str, path: str | None, allow: Sequence[str]) -> type[Control]:
    """The library's classes by name, others by path; a module is imported only if it is in `allow`."""
    if path is None or path.startswith("promptweave."):
        if name in CONTROLS:
            return CONTROLS[name]
        if path is not None:
            raise BrokenRecipe(f"This version has no control {name!r}. There are {', '.join(CONTROLS)}.")
        named = [
            kind for found, kind in KNOWN.items() if kind.__name__ == name and not found.startswith("promptweave.")
        ]
        if len(named) == 1:
            return named[0]
        raise BrokenRecipe(f"There is no control {name!r}. There are {', '.join(CONTROLS)}.")
    if path not in KNOWN:
        module = path.partition(":")[0]
        if not any(module == other or module.startswith(f"{other}.") for other in allow):
            raise BrokenRecipe(
                f"The control {name} is defined in the module {module}, which is not imported. Replaying a recipe "
                f'imports no code by itself. Import it first, or, if you trust it, allow it: allow=["{module}"] '
                f"(--allow-module {module})."
            )
        try:
            import_module(module)
        except ImportError as error:
            raise BrokenRecipe(
                f"The control {name} is defined in the module {module}, which cannot be imported: {error}. "
                "Put its folder on PYTHONPATH."
            ) from error
        if path not in KNOWN:
            raise BrokenRecipe(f"The module {module} no longer defines a control {name!r}.")
    return KNOWN[path]


def _hints(kind: type[Control]) -> dict[str, Any]:
    """The types of a control's fields; empty if an annotation cannot be resolved."""
    try:
        return get_type_hints(kind)
    except Exception:  # an annotation that is imported under TYPE_CHECKING only
        return {}


def _plain(value: Any, name: str, control: Control) -> Any:
    """A parameter as a value that JSON can hold."""
    if isinstance(value, Window):
        return [value.start, value.end]
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, name, control) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner, name, control) for inner in value]
    if hasattr(value, "tolist"):  # NumPy scalars
        value = value.tolist()
    if value is None or isinstance(value, str | int | float | list):
        return strict(value)
    raise TypeError(
        f"{name} of {type(control).__name__} is a {type(value).__name__}, which a recipe cannot hold. Use "
        "numbers, text, and tuples or mappings of these."
    )


def versions() -> dict[str, str]:
    """The versions of the packages that made the image."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def parse(text: str) -> dict[str, Any]:
    """Parse the record from a PNG's text chunk or from a JSON file. Raises BrokenRecipe."""
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise BrokenRecipe(f"The recipe is not JSON: {error}.") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise BrokenRecipe(
            f"A recipe must have format {FORMAT}. Received {found!r}. Update promptweave, or make the image anew."
        )
    return record

"""Controls as data: their class and parameters, written into recipes and read back, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from importlib import import_module
from typing import Any, get_type_hints

import promptweave.methods as methods
from promptweave.core.clock import Window
from promptweave.core.control import Control
from promptweave.core.fields import options_of
from promptweave.core.registry import KNOWN, path_of
from promptweave.core.shown import shown
from promptweave.editing.values import BadValue, nearest, read_option, read_value, strict

CONTROLS: dict[str, type[Control]] = {
    name: found for name, found in vars(methods).items() if isinstance(found, type) and issubclass(found, Control)
}


class BrokenRecipe(ValueError):
    """A recipe that cannot be read."""


def control_as_dict(control: Control) -> dict[str, Any]:
    """A control as its name, the path of its class, and its parameters."""
    values = {field.name: _plain(getattr(control, field.name), field.name, control) for field in fields(control)}
    return {"control": type(control).__name__, "class": path_of(type(control)), **values}


def control_from_dict(values: Any, allow_modules: Sequence[str] = ()) -> Control:
    """The inverse of `control_as_dict`. `allow_modules`: modules of your own controls that may be imported.

    Every parameter is checked against its type, and its range if it is an option. Raises BrokenRecipe.
    """
    if not isinstance(values, Mapping):
        raise BrokenRecipe(f"A control is a JSON object with its name and parameters. Received {shown(values)}.")
    name, path = (_text(values.get(key), key) for key in ("control", "class"))
    if name is None:
        raise BrokenRecipe(f'A control has a name, "control". Received {shown(dict(values))}.')
    kind = _class_of(name, path, allow_modules)
    known = [field.name for field in fields(kind)]
    given = {name: value for name, value in values.items() if name not in ("control", "class")}
    for name in given:
        if name not in known:
            raise BrokenRecipe(f"{kind.__name__} has no parameter {shown(name)}. {nearest(name, known)}")
    lacking = [
        one.name for one in fields(kind) if one.default is one.default_factory is MISSING and one.name not in given
    ]
    if lacking:
        raise BrokenRecipe(f"A recipe's {kind.__name__} cannot be made: it lacks {', '.join(lacking)}.")
    try:
        return kind(**_parameters(kind, given))
    except BadValue as error:
        raise BrokenRecipe(f"This recipe cannot be read: {error}") from error
    except Exception as error:  # a control of one's own refuses a value
        raise BrokenRecipe(f"A recipe's {kind.__name__} cannot be made: {error}.") from error


def _parameters(kind: type[Control], given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a control, checked. Raises BadValue."""
    hints, owner = _hints(kind), f"{kind.__name__}."
    listed = {one.name: one for one in options_of(kind)} if hints else {}
    return {
        name: read_option(listed[name], value, owner)
        if name in listed
        else read_value(hints.get(name, Any), value, f"{owner}{name}")
        for name, value in given.items()
    }


def _text(value: Any, name: str) -> str | None:
    """A name or a path, or None. Raises BrokenRecipe."""
    if not isinstance(value, str | None):
        raise BrokenRecipe(f'The "{name}" of a control must be text. Received {shown(value)}.')
    return value


def _class_of(name: str, path: str | None, allow_modules: Sequence[str]) -> type[Control]:
    """The library's classes by name, others by path; a module is imported only if it is in `allow_modules`."""
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
        if not any(module == other or module.startswith(f"{other}.") for other in allow_modules):
            raise BrokenRecipe(
                f"The control {name} is defined in the module {module}, which is not imported. Replaying a recipe "
                "imports no code by itself. Import it first, or, if you trust it, allow it: "
                f'allow_modules=["{module}"] (--allow-module {module}).'
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

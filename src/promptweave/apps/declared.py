"""Options and commands, read from the source text without importing it, since importing torch takes seconds.

A dataclass declares its options by fields, `name: Annotated[type, Option("help", ...)] = default`, and a control its
command by `command: ClassVar[Command] = Command(...)`. Both are parsed from the module's text. A class that cannot be
parsed, because a type in it is computed, is imported instead, with the same result.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from promptweave.core import clock
from promptweave.core.fields import Command, Listed, Option, options_of

ROOT = Path(__file__).parents[1]
NAMES: dict[str, Any] = {
    **vars(builtins), **vars(clock), "Any": Any, "Annotated": Annotated, "Literal": Literal, "Mapping": Mapping,
    "Sequence": Sequence, "Path": Path, "Option": Option, "Command": Command,
}  # fmt: skip


@cache
def declared(where: str) -> tuple[Listed, ...]:
    """The result of `options_of` for the class "module:Class"."""
    module, _, name = where.partition(":")
    try:
        classes, names = _module(module)
        return tuple(_fields(classes, name, names).values())
    except (KeyError, NameError, OSError):
        return options_of(getattr(import_module(module), name))


@cache
def method_commands() -> dict[str, tuple[Command, str]]:
    """Name of a command -> the command that a control in `methods` declares, and the control's "module:Class"."""
    found: dict[str, tuple[Command, str]] = {}
    for path in sorted((ROOT / "methods").glob("*.py")):
        if "ClassVar[Command]" not in path.read_text("utf-8"):
            continue
        module = f"promptweave.methods.{path.stem}"
        classes, names = _module(module)
        for kind in classes.values():
            for node in kind.body:
                if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "command" and node.value:
                    command: Command = _value(node.value, names)
                    found[command.name] = command, f"{module}:{kind.name}"
    return dict(sorted(found.items()))


@cache
def _module(name: str) -> tuple[dict[str, ast.ClassDef], dict[str, Any]]:
    """The classes of a module, and the names that annotations may use; the module's own if they can be evaluated."""
    path = ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py")
    tree, names = ast.parse(path.read_text("utf-8")), dict(NAMES)
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                names[node.targets[0].id] = _value(node.value, names)
            except (NameError, AttributeError, TypeError):
                continue  # it needs torch, for example
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}, names


def _fields(classes: Mapping[str, ast.ClassDef], name: str, names: Mapping[str, Any]) -> dict[str, Listed]:
    """The options of a class; those of its bases in the same module come first."""
    found: dict[str, Listed] = {}
    for base in classes[name].bases:
        if ast.unparse(base) in classes:
            found |= _fields(classes, ast.unparse(base), names)
    for field, parts, value in _annotated(classes[name]):
        extras = [_value(part, names) for part in parts[1:]]
        option = next((extra for extra in extras if isinstance(extra, Option)), None)
        if option is not None:
            default = MISSING if value is None else _value(value, names)
            found[field] = Listed(field, _value(parts[0], names), default, option)
    return found


def _annotated(kind: ast.ClassDef) -> Iterator[tuple[str, list[ast.expr], ast.expr | None]]:
    """Name, arguments of `Annotated[...]`, and default of each annotated field."""
    for node in kind.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Subscript):
            hint = node.annotation
            if ast.unparse(hint.value) == "Annotated" and isinstance(hint.slice, ast.Tuple):
                yield ast.unparse(node.target), hint.slice.elts, node.value


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<declaration>", "eval"), dict(names))

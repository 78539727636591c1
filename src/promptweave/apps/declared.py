"""Options and commands as the sources declare them, read without running them: torch alone takes seconds to import.

A dataclass of options says everything in its fields, `name: Annotated[type, Option("help", ...)] = default`, and a
control its command in `command: ClassVar[Command] = Command(...)`. Both are found in the text of the module. A class
that cannot be read so, because a type of its own is computed, is imported instead: the answer is the same.
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
    """What `options_of` says of the class at "module:Class"."""
    module, _, name = where.partition(":")
    try:
        classes, names = _module(module)
        return tuple(_fields(classes, name, names).values())
    except (KeyError, NameError, OSError):
        return options_of(getattr(import_module(module), name))


@cache
def method_commands() -> dict[str, tuple[Command, str]]:
    """The commands that controls in `methods` declare, and where the controls are, by the name of the command."""
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
    """The classes of a module, and the names that annotations may use: its own where they can be computed so."""
    path = ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py")
    tree, names = ast.parse(path.read_text("utf-8")), dict(NAMES)
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                names[node.targets[0].id] = _value(node.value, names)
            except (NameError, AttributeError, TypeError):
                continue  # of torch, say
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}, names


def _fields(classes: Mapping[str, ast.ClassDef], name: str, names: Mapping[str, Any]) -> dict[str, Listed]:
    """The options of a class, those of its bases in the same module first."""
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
    """Name, what stands in `Annotated[...]`, and default of each field that has it."""
    for node in kind.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Subscript):
            hint = node.annotation
            if ast.unparse(hint.value) == "Annotated" and isinstance(hint.slice, ast.Tuple):
                yield ast.unparse(node.target), hint.slice.elts, node.value


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<declaration>", "eval"), dict(names))

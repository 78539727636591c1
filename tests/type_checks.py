"""Importing this checks the annotations of the package at every call that follows, shapes of tensors included.

jaxtyping's own hook wraps each call in a scope for the names of dimensions, which binds its arguments twice and takes
longer than most calls. Only functions with a tensor in their annotations need such a scope; beartype checks the rest.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
from dataclasses import is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from typing import Any, Self, get_args, get_type_hints

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, jaxtyped

NAME = "__checked__"
AS_JAXTYPING = BeartypeConf(violation_type=TypeCheckError)  # a TypeError


def of_arrays(hint: Any) -> bool:
    """Whether an annotation has dimensions in it."""
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(of_arrays, get_args(hint)))


def resolved(function: Any) -> dict[str, Any]:
    """The annotations of a function as types; those that can't be known yet are left out."""
    found: dict[str, Any] = {}
    for name, hint in function.__annotations__.items():
        holder = types.SimpleNamespace(__annotations__={name: hint})
        try:
            found |= get_type_hints(holder, function.__globals__, include_extras=True)
        except Exception:  # a name that only type checkers import
            continue
    return {name: hint for name, hint in found.items() if hint is not Self}  # no function knows its class


def checked(thing: Any) -> Any:
    """A function, or a dataclass with its `__init__`, whose annotations are checked at each call."""
    if isinstance(thing, type):
        if is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = checked(thing.__init__)
        return thing
    if not inspect.isfunction(thing) or not thing.__annotations__:
        return thing
    hints = resolved(thing)
    if not hints:
        return thing
    copy = types.FunctionType(thing.__code__, thing.__globals__, thing.__name__, thing.__defaults__, thing.__closure__)
    copy.__kwdefaults__, copy.__qualname__, copy.__module__ = thing.__kwdefaults__, thing.__qualname__, thing.__module__
    copy.__annotations__ = hints
    wrapped = functools.wraps(thing)(beartype(copy, conf=AS_JAXTYPING))
    return jaxtyped(wrapped, typechecker=None) if any(map(of_arrays, hints.values())) else wrapped


class Marking(ast.NodeTransformer):
    """Puts `checked` innermost on functions, outermost on classes; not on functions within functions, which would be
    wrapped anew at each call of the outer one."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.decorator_list.append(ast.copy_location(ast.Name(NAME, ast.Load()), node))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        node.decorator_list.insert(0, ast.copy_location(ast.Name(NAME, ast.Load()), node))
        return node


class Loader(SourceFileLoader):
    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        tree = Marking().visit(ast.parse(data))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True, optimize=_optimize)

    def get_code(self, fullname: str) -> Any:  # not from a cache, nor into one
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: Any) -> None:
        vars(module)[NAME] = checked
        super().exec_module(module)


class Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname.partition(".")[0] != "promptweave":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


if any(name.partition(".")[0] == "promptweave" for name in sys.modules):
    raise RuntimeError("Import type_checks before promptweave: modules that are imported already are not checked.")
sys.meta_path.insert(0, Finder())

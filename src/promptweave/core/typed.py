"""Public functions check what they are given: a wrong type is a sentence, not an error from the depths."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

P = ParamSpec("P")
R = TypeVar("R")
SCALARS = (str, bytes, int, float, complex, list, tuple, dict, set, type(None))


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Raise TypeError, with a sentence, for an argument whose type its annotation does not allow.

    Unpacked options are left to the function, which knows their names.

    >>> @checked
    ... def half(number: float) -> float:
    ...     return number / 2
    >>> half("3")
    Traceback (most recent call last):
    TypeError: half takes a number as number. Received '3' (str).
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> R:
        hints = hints_of(function)
        for name, value in signature.bind(*given, **named).arguments.items():
            kind = signature.parameters[name].kind
            if name not in hints or kind is inspect.Parameter.VAR_KEYWORD:
                continue
            values = value if kind is inspect.Parameter.VAR_POSITIONAL else (value,)
            for each in values:
                if not fits(each, hints[name]):
                    _refuse(function.__name__, name, each, hints[name], several=values is value)
        return function(*given, **named)

    return call


@cache
def hints_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    return get_type_hints(function)


def _refuse(call: str, name: str, value: Any, hint: Any, *, several: bool) -> None:
    shown, kind, cure = repr(value), type(value).__name__, ""
    if several and kind in ("list", "tuple"):
        cure = f" Give them one by one: {call}(..., *{name})."
    elif "Pipeline" in kind:
        cure = f" Load it first: {call}(..., {name}=promptweave.load(pipeline))."
    elif kind == "str" and _said(hint) == "a model":
        cure = f" Load it first: {name}=promptweave.load({shown[:60]})."
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    raise TypeError(f"{call} takes {_said(hint)} as {name}. Received {shown} ({kind}).{cure}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; what cannot be told is."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint in (None, types.NoneType):
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in inner)
    if origin is Literal:
        return any(value is each or (type(value) is type(each) and value == each) for each in inner)
    kind = origin or hint
    if kind is bool:
        return isinstance(value, bool) or type(value).__name__ == "bool"  # numpy's
    if kind is int:
        return not isinstance(value, bool) and isinstance(value, Integral)
    if kind is float:
        return not isinstance(value, bool) and isinstance(value, Real)
    if kind is Path:
        return isinstance(value, Path)
    if kind in (Sequence, list) or (kind is tuple and inner[-1:] == (Ellipsis,)):
        return _sequence(value) and all(fits(each, inner[0]) for each in (value if inner else ()))
    if kind is tuple:
        pairs = zip(value, inner, strict=False) if _sequence(value) else ()
        return _sequence(value) and len(value) == len(inner) and all(fits(each, part) for each, part in pairs)
    if kind in (Mapping, dict):
        return isinstance(value, Mapping)
    if kind is Callable or origin is Callable:
        return callable(value)
    if getattr(kind, "_is_protocol", False):
        return _speaks(value, kind)
    array = getattr(hint, "array_type", None)  # of jaxtyping
    if array is not None:
        return isinstance(value, array)
    return isinstance(value, kind) if isinstance(kind, type) else True


def _sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _speaks(value: Any, protocol: Any) -> bool:
    """Whether a value has the methods of a protocol; its properties may be costly to read, and are not looked at."""
    names: list[str] = protocol.__dict__.keys()
    methods = [name for name in names if name[0] != "_" and inspect.isfunction(getattr(protocol, name))]
    whole: Any = getattr(value, "__class__", None)
    known: set[str] = {*dir(whole), *getattr(value, "__dict__", {})}
    return not isinstance(value, SCALARS) and known.issuperset(methods)


def _said(hint: Any) -> str:
    """A type for people."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        parts = [_said(part) for part in inner if part is not types.NoneType]
        return " or ".join(dict.fromkeys(parts))
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    kind = origin or hint
    plain: dict[Any, str] = {
        str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path",
        dict: "a mapping", Mapping: "a mapping",
    }  # fmt: skip
    if kind in (Sequence, list, tuple):
        return f"a list (each {_said(inner[0])})" if inner else "a list"
    if kind is Callable or origin is Callable:
        return "a function"
    if getattr(hint, "array_type", None) is not None:
        return f"a {hint.array_type.__name__.lower()} [{hint.dim_str}]"
    name = getattr(kind, "__name__", str(kind))
    return plain.get(kind) or f"{'an' if name[0] in 'AEIOU' else 'a'} {name.lower() if name == 'Model' else name}"

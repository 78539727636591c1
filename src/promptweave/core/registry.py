"""Control classes by importable path, so that recipes can find them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

KNOWN: dict[str, type[Any]] = {}  # path -> class


def path_of(kind: type[Any]) -> str:
    """The path "module:Class" of a class; for one in the running script, with the module's name when imported.

    >>> from fractions import Fraction
    >>> path_of(Fraction)
    'fractions:Fraction'
    """
    module = kind.__module__
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if module == "__main__" and script:
        module = Path(script).stem
    return f"{module}:{kind.__qualname__}"


def register(kind: type[Any]) -> None:
    """Register a class; a later one of the same path replaces it, as happens in notebooks."""
    KNOWN[path_of(kind)] = kind

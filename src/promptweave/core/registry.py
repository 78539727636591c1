"""Classes of controls by name and importable path, so that a recipe finds them again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

KNOWN: dict[str, type[Any]] = {}  # path -> class


def path_of(kind: type[Any]) -> str:
    """ "module:Class"; of a script that is run, the module that it would be imported as.

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
    """Make a class known; a later one of the same path takes its place, as in a notebook."""
    KNOWN[path_of(kind)] = kind

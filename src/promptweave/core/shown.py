"""Values in error messages: short, and of any value whatever."""

from __future__ import annotations

from reprlib import Repr
from typing import Any, cast
from unicodedata import category

LONGEST = 120  # characters
SEVERAL = 4  # parts of a list in a `__repr__`
_SHORT = Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 4
_SHORT.maxstring = _SHORT.maxother = LONGEST


def shown(value: object) -> str:
    """The value as Python writes it, shortened if it is long; its type if it cannot be written.

    >>> shown("cat"), shown(10**5000), shown([0.0] * 1000)
    ("'cat'", 'a value of type int that is too long to show', '[0.0, 0.0, 0.0, 0.0, ...]')
    """
    try:
        text = repr(value)
        if len(text) > LONGEST:
            text = _SHORT.repr(value)
    except Exception:  # of a number with more digits than Python writes, lists nested too deeply, a faulty __repr__
        return f"a value of type {type(value).__name__} that is too long to show"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def harmless(text: str) -> str:
    r"""A text that may be anybody's, for a terminal: control characters but line ends and tabs as they are written.

    >>> print(harmless("red: \x1b[31m"))
    red: \x1b[31m
    """
    return "".join(repr(c)[1:-1] if category(c) == "Cc" and c not in "\n\t" else c for c in text)


def brief(kind: object, *said: str) -> str:
    """A one-line `__repr__`: the name of the object's class, and what is said of it in brackets.

    >>> brief(3, "odd", "", "small")
    'int(odd, small)'
    """
    return f"{type(kind).__name__}({', '.join(part for part in said if part)})"


def short(value: Any, longest: int = 40) -> str:
    """A value in few characters and one line; of arrays and tensors their shapes, of long lists their beginnings.

    >>> short("a cat " * 20), short([0.0] * 1000), short({"cat": (0.0, 0.5)})
    ("'a cat a cat a cat a cat a cat a cat a…'", '[0.0, 0.0, 0.0, ... 1000]', "{'cat': (0.0, 0.5)}")
    """
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} {[*shape]}"
    if isinstance(value, tuple | list):
        begin, end = ("(", ")") if isinstance(value, tuple) else ("[", "]")
        every = cast(list[Any], value)
        more = [f"... {len(every)}"] if len(every) > SEVERAL else []
        parts = [short(one, longest) for one in every[: SEVERAL - bool(more)]] + more
        return begin + ", ".join(parts) + ("," if len(every) == 1 and begin == "(" else "") + end
    if isinstance(value, dict):
        pairs = list(cast(dict[Any, Any], value).items())
        parts = [f"{short(name, longest)}: {short(one, longest)}" for name, one in pairs[:SEVERAL]]
        return "{" + ", ".join([*parts, *([f"... {len(pairs)}"] if len(pairs) > SEVERAL else [])]) + "}"
    text = " ".join(shown(value).split())
    quote = text[0] if isinstance(value, str) and text[:1] in "'\"" else ""
    return text if len(text) <= longest else f"{text[: longest - 1 - len(quote)]}…{quote}"

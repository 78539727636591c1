"""Values in error messages: short, and of any value whatever."""

from __future__ import annotations

from reprlib import Repr

LONGEST = 120  # characters
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

"""Values in error messages: short, and of any value whatever."""

from __future__ import annotations

LONGEST = 120  # characters


def shown(value: object) -> str:
    """The value as Python writes it, cut if it is long; its type if it cannot be written.

    >>> shown("cat"), shown(10**5000)
    ("'cat'", 'a value of type int that is too long to show')
    """
    try:
        text = repr(value)
    except Exception:  # of a number with more digits than Python writes, or of a faulty __repr__
        return f"a value of type {type(value).__name__} that is too long to show"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"

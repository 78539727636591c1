"""JSON that other people wrote: read strictly, with sentences for what is wrong with it."""

from __future__ import annotations

import codecs
import json
from typing import Any

from promptweave.core.shown import shown

DIGITS = 400  # of a whole number; float64 ends at 309
UTF_16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


class BadJson(ValueError):
    """Text that is no JSON, or JSON that means two things."""


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text; bytes are UTF-8, with or without a byte order mark.

    Raises BadJson, also for what Python's own reader lets pass or reports in its own words: two keys of one name,
    numbers of hundreds of digits, lists nested too deeply, bytes that are no UTF-8. NaN and Infinity are read, so that
    whoever checks the values can name the field.

    >>> read_json('{"seed": 1, "seed": 2}')
    Traceback (most recent call last):
    promptweave.editing.json_text.BadJson: The key 'seed' stands there twice. Leave one of them out.
    """
    if isinstance(text, bytes):
        text = decoded(text)
    try:
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_object, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise BadJson(f"This is not JSON: {error}.") from error
    except RecursionError:
        raise BadJson("This is not JSON that can be read: its lists are nested too deeply.") from None


def decoded(text: bytes) -> str:
    """UTF-8 as text. Raises BadJson, which names the encoding if it has a byte order mark."""
    if text.startswith(UTF_16_OR_32):
        raise BadJson("This is not UTF-8 but UTF-16 or UTF-32. Save it as UTF-8.")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadJson(
            f"This is not UTF-8: byte {error.start + 1} is {text[error.start]:#04x}. Save it as UTF-8."
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadJson(f"The key {shown(twice)} stands there twice. Leave one of them out.")
    return made


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise BadJson(f"A number has {len(digits)} digits. Numbers have at most {DIGITS}.")
    return int(digits)

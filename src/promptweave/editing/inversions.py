"""Inversions as text, NAME[:OPTION=VALUE,...]: how the command line, job files, recipes and the page name them."""

from __future__ import annotations

import json
from typing import Any

from promptweave.core.fields import Listed, options_of
from promptweave.editing.values import nearest, read_option
from promptweave.inversion import KNOWN, Auto, Inversion
from promptweave.inversion.inverting import names
from promptweave.models.base import Model
from promptweave.sampling.loop import FLOW


def read_inversion(given: str | Inversion) -> Inversion:
    """The inversion of a text. Raises ValueError for an unknown name or option, or a value out of range.

    >>> read_inversion("null-text:rounds=5,pin=true")
    NullText(rounds=5, rate=0.01, tolerance=1e-05, checkpointing=False, source_only=False, pin=True)
    """
    if isinstance(given, Inversion):
        return given
    name, _, options = given.partition(":")
    if name not in KNOWN:
        raise ValueError(f"There is no inversion {name!r}. {nearest(name, list(KNOWN))}")
    return KNOWN[name](**options_in(options, KNOWN[name], name, "an inversion"))


def options_in(options: str, kind: type, name: str, what: str) -> dict[str, Any]:
    """The options of a dataclass in a text OPTION=VALUE,OPTION=VALUE; `what` has them, and is called `name`."""
    known = {listed.name: listed for listed in options_of(kind)}
    values: dict[str, Any] = {}
    for part in filter(None, options.split(",")):
        option, equals, text = (piece.strip() for piece in part.partition("="))
        if option not in known or not equals:
            raise ValueError(
                f"The options of {what} are written NAME:OPTION=VALUE,OPTION=VALUE. Received {part!r} of "
                f"{name}, which has {', '.join(known) or 'no options'}. {nearest(option, list(known)) if known else ''}"
            )
        values[option] = read_option(known[option], json_or_text(text))
    return values


def inversions_of(model: Model) -> list[str]:
    """The names of the inversions for the kind of a model."""
    return names(flow=model.scheduler == FLOW)


def about_inversion(name: str) -> tuple[str, tuple[Listed, ...]]:
    """What an inversion does, in one sentence, and its options."""
    kind = type(read_inversion(name))
    return kind.about, options_of(kind)


def usual_inversions(model: Model) -> tuple[str, ...]:
    """The inversions of a model that need no gradients."""
    return tuple(Auto().tried(flow=model.scheduler == FLOW))


def json_or_text(text: str) -> Any:
    """A value as JSON if it is any, else as text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text

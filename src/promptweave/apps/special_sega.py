"""Additions to `promptweave sega`: concepts to steer away from, and a default strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from promptweave.apps.forms import number
from promptweave.apps.method import Asked, Special
from promptweave.core.fields import Option

USUAL = 5.0  # default strength of a concept


@dataclass(frozen=True)
class Concepts:
    """Concepts, as TEXT[=STRENGTH]."""

    concept: Annotated[
        tuple[str, ...],
        Option("Concept to steer towards. [strength 5]", group="What changes", short="c", metavar="TEXT[=STRENGTH]"),
    ] = ()
    away: Annotated[
        tuple[str, ...],
        Option("Concept to steer away from. [strength 5]", group="What changes", metavar="TEXT[=STRENGTH]"),
    ] = ()


class Sega(Special):
    options = Concepts
    without = ("concepts",)

    def prepare(self, asked: Asked) -> None:
        towards, away = (concepts(getattr(asked.extra, name), f"--{name}") for name in ("concept", "away"))
        asked.own["concepts"] = {**towards, **{text: -strength for text, strength in away.items()}}
        if not asked.own["concepts"]:
            raise ValueError("Semantic guidance needs a concept. Received none. Give --concept TEXT or --away TEXT.")

    def options_for(self, values: dict[str, Any], prompt: str) -> dict[str, Any]:
        found = {name: value for name, value in values.items() if name != "concepts"}
        for text, strength in values.get("concepts", {}).items():
            name = "away" if strength < 0 else "concept"
            found[name] = (*found.get(name, ()), f"{text}={abs(strength)!r}")
        return found


def concepts(texts: Sequence[str], flag: str) -> dict[str, float]:
    """The strength of each concept, written as "a hat" or "a hat=4"."""
    found: dict[str, float] = {}
    for text in texts:
        words, equals, strength = text.rpartition("=")
        found[words if equals else text] = number(strength, flag) if equals else USUAL
    return found


SPECIAL = Sega()

"""What `promptweave sega` has beside its options: concepts to lead away from, and a usual strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from promptweave.apps.forms import number
from promptweave.apps.method import Asked, Special
from promptweave.core.fields import Option

USUAL = 5.0  # strength of a concept


@dataclass(frozen=True)
class Concepts:
    """Concepts as people type them."""

    concept: Annotated[
        tuple[str, ...],
        Option("Text to lead to. [strength 5]", group="What changes", short="c", metavar="TEXT[=STRENGTH]"),
    ] = ()
    away: Annotated[
        tuple[str, ...],
        Option("Text to lead away from. [strength 5]", group="What changes", metavar="TEXT[=STRENGTH]"),
    ] = ()


class Sega(Special):
    options = Concepts
    without = ("concepts",)

    def prepare(self, asked: Asked) -> None:
        towards, away = (concepts(getattr(asked.extra, name), f"--{name}") for name in ("concept", "away"))
        asked.own["concepts"] = {**towards, **{text: -strength for text, strength in away.items()}}
        if not asked.own["concepts"]:
            raise ValueError("Semantic guidance needs a concept. Received none: --concept TEXT or --away TEXT.")


def concepts(texts: Sequence[str], flag: str) -> dict[str, float]:
    """Strength of each text, written as "a hat" or "a hat=4"."""
    found: dict[str, float] = {}
    for text in texts:
        words, equals, strength = text.rpartition("=")
        found[words if equals else text] = number(strength, flag) if equals else USUAL
    return found


SPECIAL = Sega()

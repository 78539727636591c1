"""What a visitor sets for an edit, as data: from the page's sliders, and back from a picture's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptweave.core.clock import Number, Span
from promptweave.editing.options import Options
from promptweave.editing.recipe import Recipe
from promptweave.methods import LocalBlend, Refine, Replace, Reweight
from promptweave.words import Words
from promptweave.words.units import key

Mask = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Settings:
    """Windows are shares of the steps in which the source's attention is used; `weights` and `windows` are by word.

    `blend`: words in whose region alone the picture may change; `mask`: a painted region, which joins it.
    """

    target: str
    cross: Number = 0.8
    self_attention: Number = 0.4
    joint: Number = 0.2
    weights: Mapping[str, Number] = field(default_factory=dict[str, Number])
    windows: Mapping[str, tuple[Number, Number]] = field(default_factory=dict[str, tuple[Number, Number]])
    blend: tuple[str, ...] = ()
    threshold: Number = 0.3
    mask: Mask | None = None

    def options(self) -> Options:
        """As `edit` takes them."""
        cross: Span | dict[str, Span] = {"default": self.cross, **self.windows} if self.windows else self.cross
        return Options(
            cross=cross,
            self_attention=self.self_attention,
            joint=self.joint,
            weights={word: factor for word, factor in self.weights.items() if factor != 1} or None,
            blend=self.blend,
            threshold=self.threshold,
            mask=self.mask,
            combine="union",
        )

    @classmethod
    def of(cls, recipe: Recipe, row: int = 1) -> Settings:
        """Those that a recipe was made with, as far as the page has them."""
        values: dict[str, Any] = {"target": recipe.prompts[row]}
        for control in recipe.controls:
            if isinstance(control, Replace | Refine):
                cross: Any = control.cross
                if isinstance(cross, Mapping):
                    named = {w: _pair(s) for w, s in cross.items() if w != "default"}
                    values["windows"], cross = named, cross.get("default", 1.0)
                values |= {"cross": _end(cross), "self_attention": _end(control.self_attention)}
                values["joint"] = _end(control.joint)
            elif isinstance(control, Reweight):
                values["weights"] = {str(word): factor for word, factor in control.weights.items()}
            elif isinstance(control, LocalBlend):
                words = control.words
                values["blend"] = (words,) if isinstance(words, str) else tuple(words)
                values |= {"threshold": control.threshold, "mask": control.mask}
        return cls(**values)


def _end(span: Any) -> Number:
    return span if isinstance(span, int | float) else span[1]


def _pair(span: Any) -> tuple[Number, Number]:
    return (0.0, span) if isinstance(span, int | float) else (span[0], span[1])


def selectors(words: Words) -> dict[str, tuple[int, ...]]:
    """A name for each word that the model reads, and its tokens: "cat", or "cat#1" and "cat#2" where it is twice."""
    readable = [word for word in words.words if word.tokens and word not in words.truncated]
    texts = [key(word.text) for word in words.words]
    named: dict[str, tuple[int, ...]] = {}
    seen: dict[str, int] = {}
    for word in words.words:
        text = key(word.text)
        seen[text] = seen.get(text, 0) + 1
        if word in readable:
            named[word.text if texts.count(text) == 1 else f"{word.text}#{seen[text]}"] = word.tokens
    return named

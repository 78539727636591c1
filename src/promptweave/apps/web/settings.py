"""The settings of an edit on the page: from its sliders to options, and back from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from promptweave.core.clock import Number, Window
from promptweave.core.fields import Listed, options_of
from promptweave.editing.inversions import about_inversion, read_inversion
from promptweave.editing.options import PromptToPrompt
from promptweave.editing.recipe import Recipe
from promptweave.editing.settings import Settings
from promptweave.editing.usual_strengths import PUBLISHED
from promptweave.editing.who_reads import asked
from promptweave.methods import Refine, Replace
from promptweave.words import Words
from promptweave.words.units import key

Mask = tuple[tuple[float, ...], ...]
LISTED: dict[str, Listed] = {
    listed.name: listed for kind in (PromptToPrompt, Settings) for listed in options_of(kind)
}  # fmt: skip
USUAL = PromptToPrompt()


def usual(name: str) -> Number:
    """The published end of a window, at which its slider starts."""
    return PUBLISHED.windows[name]


@dataclass(frozen=True)
class Form:
    """Windows are fractions of the steps in which the source's attention is used; `weights`, `windows`: by word.

    `blend`: words whose regions may change, `subtract`: those whose may not; `mask`: a painted region, in addition.
    `anew`: inpaint the painted region.
    """

    target: str
    cross: Number = usual("cross")
    self_attention: Number = usual("self_attention")
    joint: Number = usual("joint")
    weights: Mapping[str, Number] = field(default_factory=dict[str, Number])
    windows: Mapping[str, tuple[Number, Number]] = field(default_factory=dict[str, tuple[Number, Number]])
    blend: tuple[str, ...] = ()
    threshold: Number = USUAL.threshold
    mask: Mask | None = None
    anew: bool = False
    subtract: tuple[str, ...] = ()

    def options(self, joint: bool) -> dict[str, Any]:
        """The options of `edit` for these settings; `joint`: for a network with joint attention."""
        weights = {word: factor for word, factor in self.weights.items() if factor != 1}
        if self.anew:
            return self._inpainting(weights)
        given: dict[str, Any] = {"joint": self.joint}
        if not joint:
            cross = {"default": self.cross, **self.windows} if self.windows else self.cross
            given = {"cross": cross, "self_attention": self.self_attention}
        given |= {"weights": weights} if weights else {}
        given |= {"blend": self.blend, "threshold": self.threshold} if self.blend else {}
        given |= {} if self.mask is None else {"mask": self.mask}
        given |= {"subtract": self.subtract} if self.subtract else {}
        return {**given, "combine": "union"} if self.blend and self.mask is not None else given

    def fixed(self, joint: bool) -> dict[str, Any]:
        """The options that a search of the strengths leaves as they are: all but the windows and the threshold."""
        varied = ("cross", "self_attention", "joint", "threshold")
        return {name: value for name, value in self.options(joint).items() if name not in varied}

    def _inpainting(self, weights: Mapping[str, Number]) -> dict[str, Any]:
        """The options of inpainting, which reads neither windows nor regions of words."""
        if self.mask is None:
            raise ValueError("Inpainting makes anew what is painted, and nothing is. Paint a region, or uncheck it.")
        if self.blend:
            raise ValueError(
                "Inpainting makes anew the whole painted region, and the regions of words are not read. "
                f"Received {', '.join(self.blend)}. Uncheck the words, or inpainting."
            )
        return {"kind": "inpaint", "mask": self.mask, **({"weights": weights} if weights else {})}

    @classmethod
    def of(cls, recipe: Recipe, row: int = 1) -> Form:
        """The settings of a recipe, as far as the page shows them."""
        found = asked(recipe.controls)
        values = {name: found[name] for name in ("weights", "threshold", "mask") if name in found}
        cross = found.get("cross", PUBLISHED.cross)
        if isinstance(cross, Mapping):
            values["windows"] = {word: _pair(span) for word, span in cross.items() if word != "default"}
            cross = cross.get("default", 1.0)
        injected = any(isinstance(control, Replace | Refine) for control in recipe.controls)
        spans = {
            "cross": cross,
            **{name: found.get(name, PUBLISHED.windows[name]) for name in ("self_attention", "joint")},
        }
        closed = len(recipe.prompts) > 1 and not injected and "kind" not in found  # the target without injection
        values |= {name: 0 if closed else Window.of(span).end for name, span in spans.items()}
        kept = found.get("subtract", ())
        values["subtract"] = (kept,) if isinstance(kept, str) else tuple(kept)
        words = found.get("blend", ())
        values["anew"] = found.get("kind") == "inpaint"
        return cls(recipe.prompts[row], **values, blend=(words,) if isinstance(words, str) else tuple(words))


def _pair(span: Any) -> tuple[Number, Number]:
    window = Window.of(span)
    return window.start, window.end


def shaped(shape: str, keep: bool = False) -> Settings:
    """The settings for what is chosen on the page for images: those of another shape, and the original."""
    if shape == "auto":
        return Settings(size="auto", keep_original=keep)
    fit = {} if shape == "crop" else {"fit": shape}  # an unasked crop may not leave nearly nothing
    return Settings(keep_original=keep).with_(fit)


def spec_of(inversion: str | None, tuning: str | None) -> str:
    """The inversion that is chosen on the page, as text; its options stand in a field of their own."""
    name, options = inversion or "direct", "".join((tuning or "").split())
    return read_inversion(f"{name}:{options}" if options else name).spec


def chosen(spec: str) -> tuple[str, str]:
    """The inverse of `spec_of`."""
    name, _, options = spec.partition(":")
    return name, options.replace(",", ", ")


def about(name: str) -> str:
    """What an inversion does, and its options, as HTML."""
    said, listed = about_inversion(name)
    options = "".join(
        f"<li><code>{escape(one.name)}={escape(_shown(one.default))}</code> {escape(one.option.help)}</li>"
        for one in listed
    )
    return f"<p>{escape(said)}</p>" + (f"<ul>{options}</ul>" if options else "")


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def bounds(name: str) -> dict[str, Any]:
    """The range and default of an option, for a slider or number field."""
    listed = LISTED[name]
    value = PUBLISHED.windows.get(name, listed.default)
    return {"minimum": listed.option.low, "maximum": listed.option.high, "value": value}


def selectors(words: Words) -> dict[str, tuple[int, ...]]:
    """Name -> tokens of each word that the model reads: "cat", or "cat#1" and "cat#2" if it is repeated."""
    readable = [word for word in words.words if words.own(word) and word not in words.truncated]
    texts = [key(word.text) for word in words.words]
    named: dict[str, tuple[int, ...]] = {}
    seen: dict[str, int] = {}
    for word in words.words:
        text = key(word.text)
        seen[text] = seen.get(text, 0) + 1
        if word in readable:
            named[word.text if texts.count(text) == 1 else f"{word.text}#{seen[text]}"] = words.own(word)
    return named

"""The settings of an edit on the page: from its sliders to options, and back from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from promptweave.apps.web.offered import EDIT, label_of, methods, named
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
OWN_SIZE = "the model's own"


def usual(name: str) -> Number:
    """The published end of a window, at which its slider starts."""
    return PUBLISHED.windows[name]


@dataclass(frozen=True)
class Form:
    """Windows are fractions of the steps in which the source's attention is used; `weights`, `windows`: by word.

    `blend`: words whose regions may change, `subtract`: those whose may not; `mask`: a painted region, in addition.
    `method`: "edit" or another kind of edit, such as "flow" or "inpaint"; `more`: its further options.
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
    subtract: tuple[str, ...] = ()
    method: str = EDIT
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def options(self, joint: bool) -> dict[str, Any]:
        """The options of `edit` for these settings; `joint`: for a network with joint attention."""
        method = methods()[self.method]
        cross = {"default": self.cross, **self.windows} if self.windows else self.cross
        if self.method == "inpaint" and self.mask is None:
            raise ValueError("Inpainting makes anew what is painted, and nothing is. Paint a region.")
        given: dict[str, Any] = {"kind": self.method} if self.method != EDIT else {"joint": self.joint}
        if self.method == EDIT and not joint:
            given = {"cross": cross, "self_attention": self.self_attention}
        drawn: dict[str, Any] = {
            "weights": {word: factor for word, factor in self.weights.items() if factor != 1},
            "blend": self.blend, "threshold": self.threshold if self.blend else None, "mask": self.mask,
            "subtract": self.subtract,
        }  # fmt: skip
        given |= {name: value for name, value in drawn.items() if name in method.parts and value}
        if "blend" in given and "mask" in given and "combine" in {listed.name for listed in method.fields}:
            given["combine"] = "union"
        return {**given, **self.more}

    def free(self, joint: bool) -> bool:
        """Whether all windows are closed: the target is then generated without the source's attention."""
        return not (joint or self.cross or self.self_attention or self.windows)

    def fixed(self, joint: bool) -> dict[str, Any]:
        """The options that a search of the strengths leaves as they are: all but the windows and the threshold."""
        varied = ("cross", "self_attention", "joint", "threshold")
        return {name: value for name, value in self.options(joint).items() if name not in varied}

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
        values["method"] = found["kind"] if found.get("kind") in methods() else EDIT
        usual = methods()[values["method"]].usual
        more = {name: found[name] for name, value in usual.items() if found.get(name) not in (None, value)}
        if "combine" in usual and words and "mask" in values:  # the page combines both unless it is asked not to
            more = {name: value for name, value in more.items() if name != "combine"}
            more |= {"combine": "intersection"} if found["combine"] == "intersection" else {}
        values["more"] = more
        return cls(recipe.prompts[row], **values, blend=(words,) if isinstance(words, str) else tuple(words))


def asked_of(recipe: Recipe, row: int) -> tuple[str, dict[str, str | bool]]:
    """The method of an image, and the texts of its form."""
    found = named(recipe.controls)
    if found is not None:
        return found.name, found.texts_of(recipe.controls[0], recipe.prompts[row])
    form = Form.of(recipe, row)
    return form.method, methods()[form.method].texts(form.more)


def told(method: str, values: Mapping[str, str | bool]) -> list[tuple[str, str]]:
    """The fields of a method that differ from their defaults: labels and values, for people."""
    labels = {listed.name: label_of(listed).lower() for listed in methods()[method].fields}
    said = {name: "yes" if value is True else "no" if value is False else value for name, value in values.items()}
    return [(labels[name], ", ".join(value.splitlines())) for name, value in said.items()]


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

"""The strengths of an edit that gives none: as published or, for kinds of edits that want others, those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from promptweave.core.clock import Number, Window
from promptweave.words import Words
from promptweave.words.edit_kinds import EditKind, change


@dataclass(frozen=True)
class Strengths:
    """The windows of cross-, self- and joint attention, and the reason for them."""

    cross: Number
    self_attention: Number
    joint: Number
    why: str

    @property
    def windows(self) -> dict[str, Number]:
        """The windows by the names of the options."""
        return {"cross": self.cross, "self_attention": self.self_attention, "joint": self.joint}

    def reaching(self, steps: int) -> Strengths:
        """These, but as published where a window holds no step of a run of so many."""
        short = {name: PUBLISHED.windows[name] for name, end in self.windows.items() if not Window.of(end).steps(steps)}
        if all(getattr(self, name) == value for name, value in short.items()):
            return self
        why = f"{PUBLISHED.why} where so few steps leave none to shorter windows"
        return replace(self, **short, why=why)


PUBLISHED = Strengths(0.8, 0.4, 0.2, "as published")
BY_KIND: dict[EditKind, Strengths] = {
    "background": Strengths(
        0.4, 0.2, 0.1, "a background is the layout itself, which longer windows hold at that of the source"
    ),
    "addition": Strengths(
        0.4, 0.2, 0.1, "an added thing needs a place that the source's layout does not have, which longer windows hold"
    ),
}


def usual_strengths(
    source: Words, target: Words, steps: int, weighted: tuple[str, ...] = ()
) -> tuple[EditKind, Strengths]:
    """The kind of edit that two prompts ask for, and its strengths in a run of so many steps."""
    kind = change(source, target, weighted).kind
    return kind, BY_KIND.get(kind, PUBLISHED).reaching(steps)


def strengths_report(
    source: Words, target: Words, steps: int, windows: dict[str, Any], weighted: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The windows of an edit beside those that are usual for its kind, as JSON values. `windows`: those of its control
    that the network reads."""
    kind, usual = usual_strengths(source, target, steps, weighted)
    ours = {name: usual.windows[name] for name in windows}
    plain = {name: _plain(value) for name, value in windows.items()}
    return {"kind": kind, "windows": plain, "usual": ours, "default": plain == ours, "why": usual.why}


def _plain(value: Any) -> Any:
    """A window as a JSON value."""
    if isinstance(value, Mapping):
        return {word: _plain(span) for word, span in value.items()}
    return [value.start, value.end] if isinstance(value, Window) else list(value) if isinstance(value, tuple) else value


def strengths_told(found: dict[str, Any]) -> str:
    """What `strengths_report` found, as a sentence."""
    said = _said(found["windows"])
    what = NAMES[found["kind"]]
    if found["default"]:
        return f"strengths {said}: the default for {what}, {_because(found['why'])}"
    return f"strengths {said}: given; the default for {what} is {_said(found['usual'])}, {_because(found['why'])}"


NAMES: dict[EditKind, str] = {
    "swap": "words that are swapped", "colour": "another colour", "background": "another background",
    "style": "another style", "addition": "something added", "removal": "something removed", "weight": "other weights",
}  # fmt: skip


def _because(why: str) -> str:
    return why if why.startswith(PUBLISHED.why) else f"since {why}"


def _said(windows: dict[str, Any]) -> str:
    return ", ".join(f"{name.removesuffix('_attention')} {_span(value)}" for name, value in windows.items())


def _span(value: Any) -> str:
    """A window in words: "0.8", "0.2 to 0.6", "hat 0.3, others 0.8"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{'others' if word == 'default' else word} {_span(span)}" for word, span in value.items())
    window = Window.of(tuple(value) if isinstance(value, list) else value)
    return f"{window.end:g}" if window.start == 0 else f"{window.start:g} to {window.end:g}"

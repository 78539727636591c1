"""The alignment of two prompts as HTML, and other small pieces of the page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

from promptweave.apps.web.world_words import Unknown

KINDS = {
    "replace": "Words are swapped one for one: each new word takes the place of the old one.",
    "refine": "Words are added or dropped: what both prompts share keeps its place.",
    "same": "The prompts are equal: change a word, or move a strength below.",
}
SIGNS = {"kept": "", "swapped": "⇄", "added": "+", "dropped": "−"}


def matched_html(matched: Mapping[str, Any], unknown: Sequence[Unknown] = ()) -> str:
    """The edited prompt word by word; signs repeat what the colours say. Words of the edited prompt lead to their
    sliders; `unknown`: words that the model has not learned, each with words to offer instead."""
    strange = {one.word.lower() for one in unknown}
    words = "".join(_word(pair, strange) for pair in matched["pairs"])
    offers = "".join(map(_offer, unknown))
    return (
        f'<div class="pw-match" aria-live="polite"><p dir=auto>{words}</p><small>{KINDS[matched["kind"]]}</small>'
        f"{offers}</div>"
    )


def _word(pair: Mapping[str, Any], strange: Collection[str]) -> str:
    kind, old, new = pair["kind"], escape(pair["source"] or ""), escape(pair["target"] or "")
    if kind == "dropped":
        return f'<span class="pw-dropped" title="dropped"><b aria-hidden="true">−</b> <s><bdi>{old}</bdi></s></span> '
    text = f"<s>{old}</s> {new}" if kind == "swapped" else new
    sign = f'<b aria-hidden="true">{SIGNS[kind]}</b> ' if SIGNS[kind] else ""
    odd = any(part.lower() in strange for part in (pair["target"] or "").split())
    said = f"{kind}, not known to the model" if odd else kind
    return (
        f'<button type="button" class="pw-{kind}{" pw-unknown" if odd else ""}" data-word="{new}" '
        f'title="{said}: to its slider">{sign}<bdi>{text}</bdi></button> '
    )


def _offer(unknown: Unknown) -> str:
    word, field = escape(unknown.word), "target" if unknown.target else "prompt"
    buttons = " ".join(
        f'<button type="button" data-field="{field}" data-from="{word}" data-to="{escape(other)}">{escape(other)}'
        "</button>"
        for other in unknown.known
    )
    return f'<p class="pw-offer">The model has not learned <b>{word}</b>. It knows: {buttons}</p>'


def note_html(text: str, kind: str = "quiet") -> str:
    """A sentence for the status line."""
    return f'<div class="pw-note pw-{kind}" role="status" dir=auto>{escape(text)}</div>'


def progress_html(done: int, count: int, what: str) -> str:
    """Progress in steps, as text and as a bar."""
    share = round(100 * done / max(1, count))
    return (
        f'<div class="pw-note" role="status">{escape(what)}: step {done} of {count}'
        f'<progress max="100" value="{share}" aria-label="progress">{share}%</progress></div>'
    )


def steps_html(items: Sequence[tuple[str, str]]) -> str:
    """A table of facts."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td dir=auto>{escape(value)}</td></tr>" for name, value in items)
    return f'<table class="pw-facts">{rows}</table>'

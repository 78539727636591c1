"""The alignment of two prompts as HTML, and other small pieces of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

KINDS = {
    "replace": "Words are swapped one for one: each new word takes the place of the old one.",
    "refine": "Words are added or dropped: what both prompts share keeps its place.",
    "same": "The prompts are equal: change a word, or move a strength below.",
}
SIGNS = {"kept": "", "swapped": "⇄", "added": "+", "dropped": "−"}


def matched_html(matched: Mapping[str, Any]) -> str:
    """The edited prompt word by word; signs repeat what the colours say."""
    words = "".join(_word(pair) for pair in matched["pairs"])
    return (
        f'<div class="pw-match" aria-live="polite"><p dir=auto>{words}</p><small>{KINDS[matched["kind"]]}</small></div>'
    )


def _word(pair: Mapping[str, Any]) -> str:
    kind, old, new = pair["kind"], escape(pair["source"] or ""), escape(pair["target"] or "")
    if kind == "swapped":
        text = f"<s>{old}</s> {new}"
    elif kind == "dropped":
        text = f"<s>{old}</s>"
    else:
        text = new
    sign = f'<b aria-hidden="true">{SIGNS[kind]}</b> ' if SIGNS[kind] else ""
    return f'<span class="pw-{kind}" title="{kind}">{sign}<bdi>{text}</bdi></span> '


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

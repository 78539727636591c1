"""The sliders of single words: as many as the edited prompt has words, in one component."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from promptweave.core.clock import Number

SCRIPT = (Path(__file__).parent / "strengths.js").read_text("utf-8")
USUAL: tuple[Number, ...] = (1, 0, 1)  # the strength of a word, and its window
LOW, HIGH = (-3, 0, 0), (5, 1, 1)


def word_sliders() -> gr.HTML:
    """The component. Its value: `sliders_of`; its event `release`: a slider was let go, or moved by the keyboard."""
    return gr.HTML(
        {"words": [], "single": False}, html_template="", js_on_load=SCRIPT, elem_id="strengths", show_label=False
    )


def sliders_of(names: Sequence[str], values: Mapping[str, Sequence[Number]], *, single: bool) -> dict[str, Any]:
    """The value with a row for each word; `values`: strength and window by word; `single`: with windows."""
    return {"words": [[name, *values.get(name, USUAL)] for name in names], "single": single}


def rows_of(value: Any) -> dict[str, tuple[Number, ...]]:
    """Strength and window by word. Raises ValueError for what is not such a value."""
    words = value.get("words") if isinstance(value, Mapping) else None
    found: dict[str, tuple[Number, ...]] = {}
    for row in words if isinstance(words, Sequence) and not isinstance(words, str) else ():
        name, *numbers = row if isinstance(row, list | tuple) and row else (None,)
        if not isinstance(name, str) or len(numbers) != len(USUAL) or not all(map(_within, numbers, LOW, HIGH)):
            raise ValueError("A word's slider holds a strength from -3 to 5 and a window from 0 to 1. Reload the page.")
        found[name] = tuple(numbers)
    return found


def read_words(value: Any) -> tuple[dict[str, Number], dict[str, tuple[Number, Number]]]:
    """The strengths by word, and the windows that are not the whole run."""
    rows = rows_of(value)
    windows = {name: (row[1], row[2]) for name, row in rows.items() if row[1:] != USUAL[1:]}
    return {name: row[0] for name, row in rows.items()}, windows


def _within(value: Any, low: Number, high: Number) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and low <= value <= high

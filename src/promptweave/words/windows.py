"""Weights and windows of steps for the tokens of named words (Prompt-to-Prompt, section 3.2).

They are in double precision, like the maps of `words.align`; a run converts them to its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float64
from torch import Tensor

from promptweave.core.clock import LARGEST, Window, is_number
from promptweave.core.shown import shown
from promptweave.words.tokens import WordNotFound, Words

DEFAULTS = ("default", "default_")


def word_weights(words: Words, weights: Any) -> Float64[Tensor, "target"]:
    """One factor per token: those of the selected words (later ones override), and 1 for all others.

    `weights`: a mapping from words, as `Words.find` takes them, to factors. Raises ValueError for a factor that is no
    number from -LARGEST to LARGEST, and what `Words.find` raises.
    """
    check_weights(weights)
    factors = torch.ones(words.limit, dtype=torch.float64)
    for selector, factor in weights.items():
        factors[list(words.find(selector))] = float(factor)
    return factors


def check_weights(weights: Any) -> None:
    """Raise ValueError unless this is a mapping from words to factors that every precision holds."""
    if not isinstance(weights, Mapping):
        raise ValueError(f'Weights are a mapping from words to factors, as in {{"red": 2}}. Received {shown(weights)}.')
    for selector, factor in cast("Mapping[Any, Any]", weights).items():
        if not is_number(factor) or abs(factor) > LARGEST:
            raise ValueError(
                f"The factor of {shown(selector)} must be a finite number from {-LARGEST} to {LARGEST} (-2 to 10 is "
                f"usual). Received {shown(factor)}."
            )


def word_windows(
    words_list: Sequence[Words],
    cross: Any,
    steps: int,
    *,
    reference_compat: bool = False,
    calls: int | None = None,
) -> Float64[Tensor, "times targets tokens"]:
    """alpha of the cross-attention edit: 1 where a target's token takes the source's map at a step, else 0.

    `cross` is a fraction f of the steps, meaning (0, f), a pair (start, end), or a mapping from words to these, with
    "default" for all other tokens (absent: all steps); later words override. A word must be in at least one target.
    `reference_compat` rounds like the authors' code, which counts one step more than there are, and takes every
    occurrence of a word. The table has a row for each step or, with `calls`, for each network call, which is what that
    code counts: PNDM makes one call more than steps.
    """
    if steps < 1 or not words_list:
        raise ValueError(f"Windows need at least one step and one target. Received {steps} and {len(words_list)}.")
    given = cast("Mapping[Any, Any]", cross) if isinstance(cross, Mapping) else {"default": cross}
    spans: dict[Any, Any] = dict(given)
    named = [name for name in DEFAULTS if name in spans]
    if len(named) > 1:
        raise ValueError(f"A mapping of windows has one default. Received {' and '.join(named)}. Remove one of them.")
    default = spans.pop(named[0]) if named else 1.0
    times = steps if calls is None else calls
    table = torch.zeros(times, len(words_list), words_list[0].limit, dtype=torch.float64)
    table[_covered(default, steps, reference_compat)] = 1
    for selector, span in spans.items():
        window = torch.zeros(times, dtype=torch.float64)
        window[_covered(span, steps, reference_compat)] = 1
        for target, tokens in _find_in_any(words_list, selector, reference_compat).items():
            table[:, target, list(tokens)] = window[:, None]
    return table


def _covered(span: Any, steps: int, reference_compat: bool) -> slice:
    window = Window.of(span)
    if reference_compat:
        return slice(int(window.start * (steps + 1)), int(window.end * (steps + 1)))
    inside = window.steps(steps)
    return slice(inside.start, inside.stop)


def _find_in_any(words_list: Sequence[Words], selector: Any, reference_compat: bool) -> dict[int, tuple[int, ...]]:
    """Token positions in each target that has the word. Raises WordNotFound if none has it."""
    found: dict[int, tuple[int, ...]] = {}
    missing: list[WordNotFound] = []
    for target, words in enumerate(words_list):
        tokens = _every_chunk(words, selector) if reference_compat else ()
        try:
            found[target] = tokens or words.find(selector)
        except WordNotFound as error:
            missing.append(error)
    if not found:
        raise missing[0]
    return found


def _every_chunk(words: Words, selector: Any) -> tuple[int, ...]:
    """Tokens of all words, split at spaces, that are exactly the selector."""
    chunks = [chunk for chunk in words.chunks if words.prompt[chunk[0].start : chunk[-1].end] == selector]
    return tuple(token for chunk in chunks for unit in chunk for token in unit.tokens)

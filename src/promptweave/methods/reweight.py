"""Attention re-weighting of Prompt-to-Prompt (Hertz et al. 2022, arXiv 2208.01626, section 3.2).

The attention maps of named words in the targets are multiplied by a factor c,

    (Edit(M_t, M_t*, t))_ij = c M_ij for the tokens j of the word, M_ij for all others.

Differs from the authors' code: the factors act in all steps unless `window` is given; theirs act in the cross window.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import LARGEST, Number, Span, Step, Window
from promptweave.core.control import Control, Hooks, NoEffect, Run
from promptweave.core.fields import Option
from promptweave.core.kept import NOTHING, Kept
from promptweave.core.rows import Rows
from promptweave.core.site import Site
from promptweave.core.targets import chosen
from promptweave.methods.published_windows import calls, closed, spans_of
from promptweave.words import WordNotFound, Words, word_weights, word_windows
from promptweave.words.windows import check_weights


@dataclass(frozen=True)
class Reweight(Control):
    """Attention re-weighting: multiply the maps of named words by factors; -2 to 10 is usual (section 3.2).

    It acts on the map that earlier controls left: in `[Replace(), Reweight(...)]`, on that of the source. `weights`:
    word -> factor. `window`: fraction or window of the steps, or a mapping from words to these, like `cross` of
    `Replace`; the authors' code has one window for both, and `reference_compat` counts it as that code does. Raises
    WordNotFound for a word that no target has, NoEffect if all factors are 1 or the window is empty.
    """

    weights: Annotated[
        Mapping[str, Number],
        Option(
            "Factor on the attention that a word gets.",
            low=-LARGEST,
            high=LARGEST,
            group="What changes",
            flag="--weight",
            short="w",
            metavar="WORD=FACTOR",
        ),
    ]
    window: Annotated[
        Span | Mapping[str, Span],
        Option("Fraction or range of the steps in which the factors act.", low=0, high=1, metavar="FRACTION"),
    ] = 1.0
    targets: tuple[int, ...] | None = None
    reference_compat: Annotated[bool, Option("Count the window as the authors' code does.", group="Advanced")] = False

    def caption(self, target: int) -> str:
        return ", ".join(f"{word} x {factor:g}" for word, factor in self.weights.items())

    def bind(self, run: Run) -> Hooks:
        check_weights(self.weights)
        rows = chosen(self.targets, run)
        targets = [run.words[row] for row in rows]
        for word in self.weights:
            _find_somewhere(word, targets)
        Window.check(self.window, "window of Reweight")
        times = calls(run) if self.reference_compat else run.steps
        windows = word_windows(targets, self.window, run.steps, reference_compat=self.reference_compat, calls=times)
        factors: list[dict[int, Float[Tensor, "target"]]] = [{} for _ in range(times)]
        for row, words, alphas in zip(rows, targets, windows.unbind(1), strict=True):
            known = {word: factor for word, factor in self.weights.items() if _has(words, word)}
            whole = word_weights(words, known)
            made: dict[bytes, Float[Tensor, "target"]] = {}  # one for all steps that are alike
            for at, alpha in zip(factors, alphas, strict=True):
                factor = torch.where(alpha > 0, whole, 1)
                if not bool((factor == 1).all()):
                    key = bytes(factor.to(torch.float64).numpy())
                    at[row] = made.setdefault(key, factor.to(run.device, run.dtype))
        if not any(factors):
            raise NoEffect(
                "Reweight needs a factor other than 1 and a window with a step in it. "
                f"Received {dict(self.weights)} and window={self.window}."
            )
        return _Weighting(factors, self.reference_compat)

    def reads(self, run: Run) -> Kept:
        return NOTHING

    def idle(self, run: Run) -> bool:
        return set(self.weights.values()) <= {1} or closed(spans_of(self.window), run, self.reference_compat)


def _has(words: Words, word: Any) -> bool:
    try:
        words.find(word)
    except WordNotFound:
        return False
    return True


def _find_somewhere(word: Any, targets: Sequence[Words]) -> None:
    """Raise WordNotFound if no target has the word."""
    if not any(_has(words, word) for words in targets):
        targets[0].find(word)


@dataclass
class _Weighting(Hooks):
    factors: list[dict[int, Float[Tensor, "target"]]]  # for each step or, with reference_compat, for each network call
    by_call: bool = False
    steps: set[int] = field(default_factory=set[int])
    sites: set[str] = field(default_factory=set[str])

    def state(self, step: Step) -> Hashable:
        factors = self.factors[step.call if self.by_call else step.index]
        if factors:
            self.steps.add(step.index)
        return tuple((row, id(factor)) for row, factor in factors.items())

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        factors = {} if site.kind == "self" else self.factors[step.call if self.by_call else step.index]
        if not factors:
            return rows
        self.steps.add(step.index)
        self.sites.add(site.name)
        for row, factor in factors.items():
            old = rows["cond"][row].pattern
            rows = rows.put("cond", row, pattern=site.on_image(old * site.widen(factor), old))
        return rows

    def report(self) -> dict[str, Any]:
        return {"cross_steps": len(self.steps), "cross_sites": len(self.sites)}

"""How the words of two prompts correspond, as maps from source tokens to target tokens (Prompt-to-Prompt, section 3)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Window
from promptweave.words.tokens import Selector, Word, WordNotFound, Words

Span = float | tuple[float, float] | Window
DEFAULTS = ("default", "default_")


@dataclass(frozen=True)
class Pair:
    """One line of the alignment table: what became of a run of words."""

    kind: Literal["kept", "swapped", "added", "dropped"]
    source: str
    target: str
    source_tokens: tuple[int, ...] = ()
    target_tokens: tuple[int, ...] = ()


def _runs(source: Words, target: Words) -> list[tuple[str, list[Word], list[Word]]]:
    texts = [[word.text.casefold() for word in words.words] for words in (source, target)]
    codes = difflib.SequenceMatcher(None, *texts, autojunk=False).get_opcodes()
    return [(tag, list(source.words[a:b]), list(target.words[c:d])) for tag, a, b, c, d in codes]


def alignment(source: Words, target: Words) -> list[Pair]:
    """Kept words one by one, and runs of swapped, added and dropped words, in the target's order."""
    pairs: list[Pair] = []
    for tag, old, new in _runs(source, target):
        if tag == "equal" or (tag == "replace" and len(old) == len(new)):
            kind = "kept" if tag == "equal" else "swapped"
            pairs += [Pair(kind, a.text, b.text, a.tokens, b.tokens) for a, b in zip(old, new, strict=True)]
            continue
        kind = {"replace": "swapped", "insert": "added", "delete": "dropped"}[tag]
        words = [" ".join(word.text for word in run) for run in (old, new)]
        tokens = [tuple(token for word in run for token in word.tokens) for run in (old, new)]
        pairs.append(Pair(kind, words[0], words[1], tokens[0], tokens[1]))
    return pairs


def suggest(source: Words, target: Words) -> Literal["replace", "refine", "same"]:
    """The edit that fits two prompts: replace when words were swapped one for one, refine when any was added or dropped."""
    runs = [(old, new) for tag, old, new in _runs(source, target) if tag != "equal"]
    if not runs:
        return "same"
    return "replace" if all(len(old) == len(new) for old, new in runs) else "refine"


def replace_map(source: Words, target: Words, *, reference_compat: bool = False) -> Float[Tensor, "source target"]:
    """M of word swap, [source tokens, target tokens]: the target token n attends where the source tokens w with M[w, n] do.

    Kept tokens map one to one; a swapped run of tokens maps onto its replacement, one to one when the counts agree and
    evenly otherwise; padding maps to padding. Each source token keeps mass 1: what would fall off the right edge goes
    to the last target token. With `reference_compat` the words are counted and paired as the authors' code does, and
    everything after the last swapped word maps to its own position, whatever shift the swap made.
    """
    matrix = torch.zeros(source.limit, target.limit)
    i = j = 0
    for old, new in _token_runs(source, target, reference_compat):
        gap = old[0] - i
        matrix[range(i, i + gap), range(j, j + gap)] = 1
        i, j = old[0] + len(old), new[0] + len(new)
        if len(old) == len(new):
            matrix[list(old), list(new)] = 1
        else:
            matrix[[[s] for s in old], list(new)] = 1 / len(new)
    if reference_compat:
        rest = range(j, target.limit)
        matrix[rest, rest] = 1
        return matrix
    common = min(source.limit - i, target.limit - j)
    matrix[range(i, i + common), range(j, j + common)] = 1
    matrix[i + common :, -1] = 1
    return matrix


def _token_runs(source: Words, target: Words, reference_compat: bool) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    if reference_compat and len(source.prompt.split(" ")) != len(target.prompt.split(" ")):
        raise ValueError(
            "Replace pairs words one to one, so both prompts need the same number of words. Received "
            f"{len(source.prompt.split(' '))} in {source.prompt!r} and {len(target.prompt.split(' '))} in {target.prompt!r}. "
            "Use Refine for added or dropped words."
        )
    runs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for pair in alignment(source, target):
        if pair.kind in ("added", "dropped"):
            raise ValueError(
                f"Replace swaps words for words; {(pair.target or pair.source)!r} was {pair.kind}, between {source.prompt!r} "
                f"and {target.prompt!r}. Use Refine for added or dropped words."
            )
        cut = [w.text for words, tokens in ((source, pair.source_tokens), (target, pair.target_tokens)) for w in words.truncated
               if set(w.tokens) & set(tokens)]  # fmt: skip
        if pair.kind == "swapped":
            if cut or not pair.source_tokens or not pair.target_tokens:
                raise ValueError(f"{pair.source!r} -> {pair.target!r} cannot be swapped: beyond the model's last token. Shorten it.")
            runs.append((pair.source_tokens, pair.target_tokens))
    return runs


def common_tokens(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """For each target token the source position it is matched with, or -1: a longest common subsequence.

    Needleman-Wunsch with gap 0, match 1, mismatch -1, as the authors use it: a mismatch never pays. Among equals, matches
    stand as early in the target as possible.

    >>> common_tokens([0, 5, 9], [0, 7, 5, 9])
    [0, -1, 1, 2]
    """
    rows, columns = len(source), len(target)
    score = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            diagonal = score[i - 1][j - 1] + (1 if source[i - 1] == target[j - 1] else -1)
            score[i][j] = max(score[i][j - 1], score[i - 1][j], diagonal)
    mapper = [-1] * columns
    i, j = rows, columns
    while i and j:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            mapper[j] = i
    return mapper


def refine_map(
    source: Words, target: Words, *, reference_compat: bool = False
) -> tuple[list[int], Float[Tensor, "target"]]:
    """(mapper, kept): the source token of each target token, or -1, and 1 where there is one, else 0.

    Padding maps to padding: the k-th pad of the target to the k-th of the source, at most to the last. With
    `reference_compat` it maps to its own position, which for a longer source is one of its words.
    """
    mapper = common_tokens(source.content, target.content)
    for k in range(target.limit - target.length):
        start = target.length if reference_compat else source.length
        mapper.append(min(start + k, source.limit - 1))
    kept = torch.tensor([0.0 if index < 0 else 1.0 for index in mapper])
    return mapper, kept


def refine_matrix(mapper: Sequence[int], kept: Float[Tensor, "target"]) -> Float[Tensor, "source target"]:
    """G with G[mapper[n], n] = kept[n]; columns of unmatched tokens are zero."""
    matrix = torch.zeros(len(mapper), len(mapper))
    for n, index in enumerate(mapper):
        if index >= 0:
            matrix[index, n] = kept[n]
    return matrix


def word_weights(words: Words, weights: Mapping[str, float]) -> Float[Tensor, "target"]:
    """One factor per token: those of the named words, 1 for all others."""
    factors = torch.ones(words.limit)
    for selector, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not -1e4 < weight < 1e4:
            raise ValueError(f"The weight of {selector!r} must be a finite number (-2 to 10 is usual). Received {weight!r}.")
        factors[list(words.find(selector))] = float(weight)
    return factors


def word_windows(
    targets: Sequence[Words], spec: Span | Mapping[str, Span], steps: int, *, reference_compat: bool = False
) -> Float[Tensor, "steps targets tokens"]:
    """alpha of the cross-attention edit: 1 where a target's token takes the source's map at a step.

    `spec` is a share f of the steps, meaning (0, f), a pair, or a mapping from words to these with "default" (absent:
    all steps). A word is looked up in every target and must be in one. `reference_compat` rounds as the authors' code,
    which counts one step more than there are.
    """
    table = torch.zeros(steps, len(targets), targets[0].limit)
    mapping: Mapping[Selector, Span] = dict(spec) if isinstance(spec, Mapping) else {"default": spec}

    def rows(window: Window) -> slice:
        if reference_compat:
            return slice(int(window.start * (steps + 1)), int(window.end * (steps + 1)))
        covered = window.steps(steps)
        return slice(covered.start, covered.stop)

    default = next((mapping[key] for key in DEFAULTS if key in mapping), 1.0)
    table[rows(Window.of(default))] = 1
    for selector, span in mapping.items():
        if selector in DEFAULTS:
            continue
        errors: list[WordNotFound] = []
        for column, words in enumerate(targets):
            try:
                tokens = list(words.find(selector, column + 2))
            except WordNotFound as error:
                errors.append(error)
                continue
            table[:, column, tokens] = 0
            for step in range(steps)[rows(Window.of(span))]:
                table[step, column, tokens] = 1
        if len(errors) == len(targets):
            raise errors[0]
    return table

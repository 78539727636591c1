"""How the words of two prompts correspond, as maps from source tokens to target tokens.

Prompt-to-Prompt (Hertz et al. 2022, arXiv 2208.01626), section 3.2: "Word Swap" and "Adding a New Phrase". With P_s the
attention of the source to its tokens, the target attends with P_s M (`replace_map`) or, where it shares a word with the
source, with that word's column of P_s (`refine_map`, `refine_matrix`).

Both maps follow the same table, `alignment`: words are aligned first, then the tokens inside the words that are kept.

Differs from the authors' code: words are found by character offsets; the tokens after a swapped word shift with its
length; a word may be swapped for more or fewer words; an added phrase is aligned by words (theirs by tokens, where a
token of a kept word can be matched with one of another word); padding is aligned with padding.
`reference_compat=True` restores that code's maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from promptweave.words.runs import Tokens, Units, keys_of, one_for_one, runs, same_shape, tokens_of
from promptweave.words.runs import common_tokens as common_tokens
from promptweave.words.tokens import Words
from promptweave.words.units import is_spaceless


@dataclass(frozen=True)
class Pair:
    """A row of the alignment table: a word, or consecutive words, of the source and their counterpart in the target.

    `source_tokens` and `target_tokens` are token positions, counted from BOS as 0.
    """

    kind: Literal["kept", "swapped", "added", "dropped"]
    source: str | None
    target: str | None
    source_tokens: Tokens = ()
    target_tokens: Tokens = ()


def alignment(source: Words, target: Words) -> list[Pair]:
    """The token alignment table: what became of each word and punctuation mark, in order.

    Words that are swapped one for one have a row each; words swapped for more or fewer words share one row.
    """
    pairs: list[Pair] = []
    for old, new in runs(source.units, target.units):
        if not old or not new:
            kind = "dropped" if old else "added"
            pairs += [Pair(kind, word.text, None, word.tokens, ()) for word in old]
            pairs += [Pair(kind, None, word.text, (), word.tokens) for word in new]
        else:
            kind = "kept" if keys_of(old) == keys_of(new) else "swapped"
            pairs += [
                Pair(
                    kind,
                    source.prompt[a[0].start : a[-1].end],
                    target.prompt[b[0].start : b[-1].end],
                    tokens_of(a),
                    tokens_of(b),
                )
                for a, b in one_for_one(old, new)
            ]
    return pairs


def suggest(source: Words, target: Words) -> Literal["replace", "refine", "same"]:
    """The edit that suits two prompts: replace if words are only swapped one for one, refine if their counts differ.

    "same" if a model reads the same of both. Words that only have other weights or letters of another case, or begin
    another chunk, are swapped for themselves.
    """
    differing = [(old, new) for old, new in runs(source.units, target.units) if keys_of(old) != keys_of(new)]
    read = [(words.ids, words.scales, words.schedule) for words in (source, target)]
    if not differing and read[0] == read[1]:
        return "same"
    return "replace" if all(same_shape(old, new) for old, new in differing) else "refine"


def replace_map(source: Words, target: Words, *, reference_compat: bool = False) -> Float64[Tensor, "source target"]:
    """M of a word swap: the map of target token n is the sum over source tokens w of P_s[w] M[w, n] (section 3.2).

    Kept tokens map one to one; a swapped word maps to its replacement, one to one if the token counts agree, else
    evenly, by 1 / count; padding maps to padding. Every row sums to 1: what would fall off the right edge goes to the
    last target token. Prompts with equally many words are paired word by word, others by the words that they share.
    Raises ValueError if a word has no counterpart.
    """
    if reference_compat:
        return _reference_replace_map(source, target)
    values, last, following = dict[tuple[int, int], float](), target.limit - 1, 0
    for rows, columns in _segments(source, target):
        following = columns[-1] + 1 if columns else following
        if not rows:
            continue
        columns = columns or (min(following, last),)
        one_to_one = len(rows) == len(columns)
        found = zip(rows, columns, strict=True) if one_to_one else [(row, n) for row in rows for n in columns]
        values |= dict.fromkeys(found, 1.0 if one_to_one else 1 / len(columns))
    matrix = torch.zeros(source.limit, target.limit, dtype=torch.float64)
    matrix[tuple(torch.tensor(list(values)).T)] = torch.tensor(list(values.values()), dtype=torch.float64)
    return matrix


def refine_map(
    source: Words, target: Words, *, reference_compat: bool = False
) -> tuple[list[int], Float64[Tensor, "target"]]:
    """(mapper, alphas) of an added phrase: for each target token its source token, or -1, and 1 if it has one, else 0.

    P_t'[n] = alphas[n] P_s[mapper[n]] + (1 - alphas[n]) P_t[n] (section 3.2). A word that `alignment` keeps maps to
    itself in the source, token by token; other words get -1. The k-th padding token maps to the k-th of the source, or
    to its last. `reference_compat` aligns tokens instead of words, and maps a padding token to its own position, which
    may hold a word in the source.
    """
    mapper = [-1] * target.limit
    if reference_compat:
        for place, index in zip(target.places, common_tokens(source.content, target.content), strict=True):
            mapper[place] = -1 if index < 0 else source.places[index]
    else:
        kept = [(pair.source_tokens, pair.target_tokens) for pair in alignment(source, target) if pair.kind == "kept"]
        for rows, columns in kept:
            for row, column in _inside(source, rows, target, columns):
                mapper[column] = row
        for row, column in zip(*map(_specials, (source, target)), strict=False):
            mapper[column] = row
    pads = (source.pads or (source.limit - 1,)) if not reference_compat else tuple(range(target.length, target.limit))
    for number, place in enumerate(target.pads):
        mapper[place] = pads[min(number, len(pads) - 1)]
    for place in target.frame:
        mapper[place] = place
    return mapper, torch.tensor([float(index >= 0) for index in mapper], dtype=torch.float64)


def refine_matrix(mapper: Sequence[int], alphas: Float64[Tensor, "target"]) -> Float64[Tensor, "source target"]:
    """G with G[mapper[n], n] = alphas[n], so that P_t' = P_s G + P_t diag(1 - alphas); zero columns for new tokens."""
    matrix = torch.zeros(len(mapper), len(mapper), dtype=torch.float64)
    columns = [column for column, row in enumerate(mapper) if row >= 0]
    matrix[[mapper[column] for column in columns], columns] = alphas[columns]
    return matrix


def _swaps(source: Words, target: Words) -> list[tuple[Units, Units]]:
    """Corresponding runs of a word swap: word by word for equal counts, else between the shared words."""
    spaced = not any(is_spaceless(unit.text) for unit in (*source.units, *target.units))
    if spaced and len(source.chunks) == len(target.chunks):
        return [pair for old, new in zip(source.chunks, target.chunks, strict=True) for pair in one_for_one(old, new)]
    parts = runs(source.units, target.units)
    for old, new in parts:
        if not old or not new:
            words, prompts = (old or new), (source.prompt, target.prompt)
            raise ValueError(
                f"Replace needs a replacement for every word that it removes. Received {words[0].text!r}, which was "
                f'{"dropped" if old else "added"} between "{prompts[0]}" and "{prompts[1]}". Use Refine.'
            )
    return [pair for old, new in parts for pair in one_for_one(old, new)]


def _segments(source: Words, target: Words) -> list[tuple[Tokens, Tokens]]:
    """Corresponding source and target tokens, from BOS to the last padding token, in order."""
    segments: list[tuple[Tokens, Tokens]] = [((0,), (0,))]
    for old, new in _swaps(source, target):
        if keys_of(old) == keys_of(new) and _same_tokens(source, tokens_of(old), target, tokens_of(new)):
            segments += _token_by_token(tokens_of(old), tokens_of(new))
        else:
            segments.append((tokens_of(old), tokens_of(new)))
    segments.append((source.places[-1:], target.places[-1:]))
    segments += [((place,), (place,)) for place in source.frame]
    return segments + _token_by_token(source.pads, target.pads)


def _same_tokens(source: Words, rows: Tokens, target: Words, columns: Tokens) -> bool:
    """Whether a word has the same tokens in both prompts, as far as they lie within the model's limit."""
    return all(source.ids[row] == target.ids[column] for row, column in zip(rows, columns, strict=False))


def _specials(words: Words) -> list[int]:
    """The columns of the start and end tokens, which belong to no word."""
    taken = set(tokens_of(words.units))
    return [place for place in words.places if place not in taken]


def _inside(source: Words, rows: Tokens, target: Words, columns: Tokens) -> list[tuple[int, int]]:
    """Token pairs of a kept word: one by one, or evenly if the token counts differ ("Cat", "cat")."""
    if not rows or _same_tokens(source, rows, target, columns):
        return list(zip(rows, columns, strict=False))
    return [(rows[k * len(rows) // len(columns)], column) for k, column in enumerate(columns)]


def _token_by_token(rows: Tokens, columns: Tokens) -> list[tuple[Tokens, Tokens]]:
    pairs = zip_longest(rows, columns)
    return [(() if row is None else (row,), () if column is None else (column,)) for row, column in pairs]


def _reference_replace_map(source: Words, target: Words) -> Float64[Tensor, "source target"]:
    """M as the authors' code builds it: after the last swapped word, each column takes the row of the same number."""
    matrix = torch.zeros(source.limit, target.limit, dtype=torch.float64)
    swapped = [(tokens_of(old), tokens_of(new)) for old, new in _reference_swaps(source, target)]
    i = j = 0
    while i < source.limit and j < target.limit:
        if swapped and swapped[0][0][0] == i:
            rows, columns = swapped.pop(0)
            if len(rows) == len(columns):
                matrix[list(rows), list(columns)] = 1
            else:
                matrix[[[row] for row in rows], list(columns)] = 1 / len(columns)
            i, j = i + len(rows), j + len(columns)
        else:
            matrix[i if swapped else j, j] = 1
            i, j = i + 1, j + 1
    return matrix


def _reference_swaps(source: Words, target: Words) -> list[tuple[Units, Units]]:
    """The words, split at single spaces, that differ at the same position."""
    texts = [words.prompt.split(" ") for words in (source, target)]
    if [len(texts[0])] * 3 != [len(texts[1]), len(source.chunks), len(target.chunks)]:
        raise ValueError(
            "Replace with reference_compat needs prompts with equally many words, separated by single spaces. "
            f'Received {len(texts[0])} in "{source.prompt}" and {len(texts[1])} in "{target.prompt}". Use Refine.'
        )
    pairs = zip(*texts, source.chunks, target.chunks, strict=True)
    swaps = [(old, new) for before, after, old, new in pairs if before != after]
    if not all(tokens_of(old) and tokens_of(new) for old, new in swaps):
        unread = next(unit.text for pair in swaps for units in pair for unit in units if not tokens_of(units))
        raise ValueError(
            f"Swapped words must lie within the {source.limit} tokens that the model reads. Received {unread!r}, "
            "of which it reads none. Shorten the prompts, or use Refine."
        )
    return swaps

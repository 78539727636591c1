"""Maps between the tokens of two prompts, against the authors' rules written naively, and their invariants."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import references_words as references
import torch
from families import t5_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from transformers import CLIPTokenizer

from promptweave.core.clock import Window
from promptweave.models.load import load_cached
from promptweave.words import (
    AmbiguousWord,
    WordNotFound,
    Words,
    alignment,
    common_tokens,
    refine_map,
    refine_matrix,
    replace_map,
    suggest,
    word_weights,
    word_windows,
)

Read = Callable[[str], Words]
WORDS = ["a", "cat", "squirrel", "zebra", "sky", "mirror,", "bike", "eats", "well-known", "dog"]
sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8)
pairs_of_equal_counts = st.lists(st.tuples(*[st.sampled_from(WORDS)] * 2), min_size=1, max_size=8).map(
    lambda pairs: tuple(" ".join(words) for words in zip(*pairs, strict=True))
)
anything = st.text(st.characters(exclude_categories=("Cs", "Cn")), min_size=1, max_size=120).filter(lambda s: s.strip())


def rows_of(matrix: torch.Tensor, count: int) -> list[dict[int, float]]:
    return [{int(n): round(float(row[n]), 4) for n in row.nonzero()} for row in matrix[:count]]


# Word swap


@given(prompts=pairs_of_equal_counts)
def test_replace_map_is_the_authors_in_compatibility(
    read: Read, clip_tokenizer: CLIPTokenizer, prompts: tuple[str, str]
) -> None:
    expected = references.replace_matrix(*prompts, clip_tokenizer, shift_the_tail=False)
    got = replace_map(*map(read, prompts), reference_compat=True)
    assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=0, rtol=0)


@given(prompts=pairs_of_equal_counts.map(lambda pair: (pair[0].replace(",", ""), pair[1].replace(",", ""))))
def test_replace_map_is_the_rule_with_a_shifted_tail(
    read: Read, clip_tokenizer: CLIPTokenizer, prompts: tuple[str, str]
) -> None:
    expected = references.replace_matrix(*prompts, clip_tokenizer, shift_the_tail=True)
    assert_close(replace_map(*map(read, prompts)), torch.tensor(expected, dtype=torch.float64), atol=0, rtol=0)


def test_a_swap_of_another_length_shifts_the_tail(read: Read) -> None:
    source, target = read("a cat eats"), read("a zebra eats")
    pieces = len(target.find("zebra"))
    assert len(source.find("cat")) == 1 and pieces > 1
    share = round(1 / pieces, 4)
    there, back = replace_map(source, target), replace_map(target, source)
    first = [{0: 1.0}, {1: 1.0}, {2 + k: share for k in range(pieces)}, {2 + pieces: 1.0}, {3 + pieces: 1.0}]
    assert rows_of(there, 5) == first
    assert rows_of(there[76 - pieces :], 2)[-1] == {76: 1.0}
    assert rows_of(back, 4 + pieces) == [{0: 1.0}, {1: 1.0}, *[{2: 1.0}] * pieces, {3: 1.0}, {4: 1.0}]
    assert float(there.sum()) == pytest.approx(77)
    assert back[:, 77 - pieces + 1 :].sum() == 0  # target pads that no source pad corresponds to
    compat = replace_map(source, target, reference_compat=True)
    assert rows_of(compat[3:], 1) == [{}] or pieces == 1  # the authors' code loses the word after the swap


@given(prompt=anything)
def test_the_same_prompt_gives_the_identity(read: Read, prompt: str) -> None:
    words = read(prompt)
    assert_close(replace_map(words, words), torch.eye(77, dtype=torch.float64), atol=0, rtol=0)
    mapper, alphas = refine_map(words, words)
    assert mapper == list(range(77)) and bool((alphas == 1).all())
    assert_close(refine_matrix(mapper, alphas), torch.eye(77, dtype=torch.float64), atol=0, rtol=0)
    assert suggest(words, words) == "same"
    assert {pair.kind for pair in alignment(words, words)} <= {"kept"}


@given(prompts=st.tuples(anything, anything))
def test_every_source_token_keeps_its_mass(read: Read, prompts: tuple[str, str]) -> None:
    try:
        matrix = replace_map(*map(read, prompts))
    except ValueError as error:
        assert "Use Refine" in str(error)  # words were added or dropped
    else:
        assert_close(matrix.sum(1), torch.ones(77, dtype=torch.float64), atol=1e-15, rtol=0)  # sums of 1 / count


def test_long_prompts_are_mapped_to_their_ends(read: Read) -> None:
    start, end = "cat " * 37, " dog" * 38
    source, target = read(start + "cat" + end), read(start + "zebra" + end)
    for matrix in (replace_map(source, target), replace_map(target, source)):
        assert_close(matrix.sum(1), torch.ones(77, dtype=torch.float64), atol=1e-15, rtol=0)  # sums of 1 / count
    shift = len(target.find("zebra")) - 1
    assert replace_map(source, target)[75 - shift, 75] == 1
    assert replace_map(source, target)[75, 76] == 1


def test_runs_of_other_lengths(read: Read) -> None:
    source, target = read("a cat eats"), read("a big dog eats")
    new = (*target.find("big"), *target.find("dog"))
    matrix = replace_map(source, target)
    assert_close(matrix[2, list(new)], torch.full((len(new),), 1 / len(new), dtype=torch.float64), atol=0, rtol=0)
    assert matrix[3, target.find("eats")[0]] == 1
    with pytest.raises(ValueError, match="equal|as many words"):
        replace_map(source, target, reference_compat=True)
    for pair in (("a cat", "a black cat"), ("a black cat", "a cat")):
        with pytest.raises(ValueError, match="Use Refine"):
            replace_map(*map(read, pair))


def test_punctuation_stays_out_of_a_swap(read: Read) -> None:
    source, target = read("a zebra, a dog"), read("a cat, a dog")
    comma = [words.find(",")[0] for words in (source, target)]
    matrix = replace_map(source, target)
    assert rows_of(matrix[comma[0] :], 1) == [{comma[1]: 1.0}]
    assert matrix[list(source.find("zebra")), target.find("cat")[0]].tolist() == [1.0] * len(source.find("zebra"))


def test_compatibility_needs_single_spaces_and_room(read: Read) -> None:
    with pytest.raises(ValueError, match="single spaces"):
        replace_map(read("a  cat"), read("a dog"), reference_compat=True)
    with pytest.raises(ValueError, match="77 tokens"):
        replace_map(read("cat " * 80 + "cat"), read("cat " * 80 + "dog"), reference_compat=True)


# Adding a phrase


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a cat", "a black cat", [0, 1, -1, 2, 3]),
        ("a cat", "a dog", [0, 1, -1, 3]),
        ("soup", "pea soup with croutons", [0, -1, 1, -1, -1, 2]),
        ("a cat", "a a cat", [0, 1, -1, 2, 3]),
        ("a b c", "a c", [0, 1, 3, 4]),
        ("a big red cat", "a cat", [0, 1, 4, 5]),
    ],
)
def test_alignment_vectors(source: str, target: str, expected: list[int]) -> None:
    x, y = (["<s>", *prompt.split(), "</s>"] for prompt in (source, target))
    assert common_tokens(x, y) == references.aligned(x, y) == expected


@given(x=st.lists(st.integers(0, 3), max_size=12), y=st.lists(st.integers(0, 3), max_size=12))
def test_the_alignment_is_a_longest_common_subsequence(x: list[int], y: list[int]) -> None:
    mapper = common_tokens(x, y)
    matched = [(i, j) for j, i in enumerate(mapper) if i >= 0]
    assert mapper == references.aligned(x, y)
    assert all(x[i] == y[j] for i, j in matched)
    assert all(a[0] < b[0] for a, b in zip(matched, matched[1:], strict=False))
    assert len(matched) == references.longest_common(x, y)


@given(source=sentences, target=sentences)
def test_refine_map(read: Read, source: list[str], target: list[str]) -> None:
    old, new = read(" ".join(source)), read(" ".join(target))
    mapper, alphas = refine_map(old, new)
    compat, compat_alphas = refine_map(old, new, reference_compat=True)
    expected, expected_alphas = references.refine_positions(list(old.content), list(new.content))
    assert compat == expected and compat_alphas.tolist() == expected_alphas
    assert mapper[: new.length] == references.refine_by_words(old, new)
    assert mapper[new.length :] == [min(old.length + k, 76) for k in range(77 - new.length)]
    assert alphas.tolist() == [float(index >= 0) for index in mapper]
    matrix = refine_matrix(mapper, alphas)
    attention = torch.rand(5, 77, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    gathered = attention[:, mapper] * alphas  # -1 reads the last column, times 0
    assert_close(attention @ matrix, gathered, atol=1e-6, rtol=0)  # one sum of 77 terms, all but one of them 0


def check_that_words_stay_whole(source: Words, target: Words) -> int:
    """Table and map agree: a word that stays maps to itself, token by token, every other one to nothing."""
    mapper, moved = refine_map(source, target)[0], 0
    compat = refine_map(source, target, reference_compat=True)[0]
    for pair in alignment(source, target):
        found = [mapper[token] for token in pair.target_tokens]
        assert found == (list(pair.source_tokens) if pair.kind == "kept" else [-1] * len(found)), pair
        moved += pair.kind == "kept" and [compat[token] for token in pair.target_tokens] != found
    return moved


@given(prompts=st.tuples(anything, anything))
def test_words_that_stay_stay_whole_in_any_text(read: Read, prompts: tuple[str, str]) -> None:
    source, target = map(read, prompts)
    if not source.truncated and not target.truncated:
        check_that_words_stay_whole(source, target)


@pytest.mark.parametrize("reader", ["toybox", "t5", "clip"])
def test_words_that_stay_stay_whole(read: Read, reader: str) -> None:
    """Pieces of a word that stays are never matched with an equal piece of another word."""
    tokenizers = {"toybox": lambda: load_cached("toybox").tokenizer, "t5": t5_tokenizer}
    reading = read if reader == "clip" else partial(Words, tokenizer=tokenizers[reader]())
    scenes = [
        ("a lighthouse", "a small lighthouse"), ("a biplane", "a cubist biplane"),
        ("a house", "a lighthouse and a house"),
        ("a cat riding a bike", "a black cat riding a red bike"), ("a zebra eating", "a tabby zebra eating grass"),
        ("the mirror of a castle", "the small mirror of an old castle"), ("a squirrel", "a quick red squirrel"),
    ]  # fmt: skip
    added = ["small", "quick", "zig-zag", "bright", "light", "aa", "ca", "b", "cubist", "eating"]
    pairs = [*scenes, *((old, old.replace(" ", f" {word} ", 1)) for word in added for old, _ in scenes)]
    moved = [check_that_words_stay_whole(reading(a), reading(b)) for a, b in pairs]
    moved += [check_that_words_stay_whole(reading(b), reading(a)) for a, b in pairs]
    assert sum(moved) > 5, "aligning tokens must go wrong somewhere, else this proves nothing"


def test_a_word_in_another_case_stays() -> None:
    """T5 reads "Cat" and "cat" as different pieces; it is the same word, and gets the source's attention."""
    source, target = (Words(prompt, t5_tokenizer()) for prompt in ("a Cat riding a bike", "a black cat riding a bike"))
    old, new = source.find("Cat"), target.find("cat")
    assert (len(old), len(new)) == (3, 2)
    assert [refine_map(source, target)[0][token] for token in new] == [old[0], old[1]]
    lower = Words("a cat riding a bike", t5_tokenizer())
    matrix = replace_map(source, lower)
    assert matrix[[[row] for row in old], list(lower.find("cat"))].tolist() == [[0.5, 0.5]] * 3
    assert matrix[list(old)].sum() == 3, "nothing of the word goes to its neighbours"


def test_padding_of_a_shorter_target_is_padding(read: Read) -> None:
    source, target = read("a big red cat"), read("a cat")
    assert refine_map(source, target)[0][target.length] == source.length
    assert refine_map(source, target, reference_compat=True)[0][target.length] < source.length


# The table of words, and the edit it suggests


@pytest.mark.parametrize(
    ("source", "target", "kinds", "edit"),
    [
        ("a cat on a bike", "a dog on a bike", "kskkk", "replace"),
        ("a red car, a blue sky", "a blue car, a red sky", "kskkksk", "replace"),
        ("a cat and a dog", "a dog and a cat", "kskks", "replace"),
        ("a cat", "a black cat", "kak", "refine"),
        ("a black cat", "a cat", "kdk", "refine"),
        ("a red cat", "a cat eats", "kdka", "refine"),
        ("a cat", "a big dog", "ks", "refine"),
        ("a cat", "A  CAT", "kk", "same"),
        ("a cat", "a cat.", "kka", "refine"),
        ("soup", "pea soup with croutons", "akaa", "refine"),
    ],
)
def test_alignment_table(read: Read, source: str, target: str, kinds: str, edit: str) -> None:
    old, new = read(source), read(target)
    pairs = alignment(old, new)
    assert "".join(pair.kind[0] for pair in pairs) == kinds
    assert suggest(old, new) == edit
    for words, tokens in (
        (old, [t for pair in pairs for t in pair.source_tokens]),
        (new, [t for pair in pairs for t in pair.target_tokens]),
    ):
        assert tokens == list(range(1, words.length - 1))


def test_lines_of_the_table(read: Read) -> None:
    swapped = alignment(read("a cat"), read("a big dog"))[1]
    assert (swapped.source, swapped.target, swapped.source_tokens) == ("cat", "big dog", (2,))
    added = alignment(read("a cat"), read("a black cat"))[1]
    assert (added.kind, added.source, added.target, added.source_tokens) == ("added", None, "black", ())


# Weights and windows


def test_word_weights(read: Read) -> None:
    words = read("a zebra and a cat")
    weights = word_weights(words, {"zebra": -2, "cat": 3.3, "a#2": 0.0})
    expected = torch.ones(77, dtype=torch.float64)
    expected[list(words.find("zebra"))] = -2
    expected[words.find("cat")[0]], expected[words.find("a#2")[0]] = 3.3, 0
    assert_close(weights, expected, atol=0, rtol=0)
    assert word_weights(words, {"cat": 2.0, (0, 17): 3.0}).unique().tolist() == [1.0, 3.0]
    for wrong in (float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match="finite"):
            word_weights(words, {"cat": wrong})
    with pytest.raises(WordNotFound):
        word_weights(words, {"dog": 2.0})


@pytest.mark.parametrize(("share", "ends"), [(0.2, 10), (0.4, 20), (0.5, 25), (0.8, 40), (1, 50), (0, 0)])
def test_windows_of_all_tokens(read: Read, share: float, ends: int) -> None:
    for spec in (share, (0, share), Window(0.0, share), {"default": share}, {"default_": (0.0, share)}):
        for compat in (False, True):
            table = word_windows([read("a cat"), read("a dog")], spec, 50, reference_compat=compat)
            assert table.shape == (50, 2, 77)
            assert (table[:ends] == 1).all() and (table[ends:] == 0).all()


def test_windows_round_as_they_should(read: Read) -> None:
    targets = [read("a cat")]
    assert word_windows(targets, 0.29, 100).sum() == 29 * 77  # 0.29 * 100 is a little below 29 in floating point
    assert word_windows(targets, (0.5, 0.7), 10).sum((1, 2)).nonzero().flatten().tolist() == [5, 6]
    compat = word_windows(targets, 0.95, 20, reference_compat=True)
    assert compat.sum() == int(0.95 * 21) * 77


def test_windows_of_words(read: Read) -> None:
    targets = [read("a lion on a bike"), read("a cat on a bike")]
    table = word_windows(targets, {"default": 0.6, "lion": (0.2, 0.4), "bike": 1}, 10)
    lion, bike = list(targets[0].find("lion")), targets[1].find("bike")[0]
    assert table[:, 0, lion[0]].tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
    assert table[:, 1, bike].tolist() == [1] * 10
    assert table[:, 1, targets[1].find("cat")[0]].tolist() == [1] * 6 + [0] * 4
    assert table[:, 0, 0].tolist() == [1] * 6 + [0] * 4
    assert word_windows(targets, {"lion": 0}, 10)[:, 0, 0].tolist() == [1] * 10  # no default: all steps
    later = word_windows(targets, {"on a": 0.1, "on": 0.5}, 10)
    assert later[:, 0, targets[0].find("on")[0]].sum() == 5


def test_windows_of_nothing(read: Read) -> None:
    targets = [read("a cat and a dog"), read("a cat")]
    with pytest.raises(WordNotFound, match="'zebra'"):
        word_windows(targets, {"zebra": 0.5}, 10)
    with pytest.raises(AmbiguousWord):
        word_windows(targets, {"a": 0.5}, 10)
    compat = word_windows(targets, {"default_": 0, "a": 1}, 10, reference_compat=True)
    assert compat.sum((0, 2)).tolist() == [20, 10]  # both, as in the authors' code
    with pytest.raises(ValueError, match="one default"):
        word_windows(targets, {"default": 0.5, "default_": 0.5}, 10)
    with pytest.raises(ValueError, match="at least one"):
        word_windows(targets, 0.5, 0)
    wrong: list[Any] = [1.5, -0.1, float("nan"), (0.5, 0.2)]
    for spec in wrong:
        with pytest.raises(ValueError, match="window"):
            word_windows(targets, spec, 10)

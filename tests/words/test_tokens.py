"""Words of a prompt: spans by offsets, selectors and their errors."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
import references_words as references
from families import t5_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from promptweave.words import AmbiguousWord, TruncatedWord, WordNotFound, Words
from promptweave.words.units import owners

Read = Callable[[str], Words]

# Unassigned characters may be assigned in the tokenizer's newer tables; halves of surrogate pairs are no text.
anything = st.text(st.characters(exclude_categories=("Cs", "Cn")), min_size=1, max_size=30).filter(lambda s: s.strip())
ascii_words = st.sampled_from(
    ["a", "cat", "squirrel", "zebra", "sky", "Mirror", "bike", "eats", "mirror,", "x's", "42"]
)
plain = st.lists(ascii_words, min_size=1, max_size=7).map(" ".join)


def texts(words: Words) -> list[str]:
    return [word.text for word in words.words]


def test_a_plain_prompt(read: Read, clip_tokenizer: CLIPTokenizer) -> None:
    words = read("a photo of a cat")
    assert texts(words) == ["a", "photo", "of", "a", "cat"]
    assert [word.tokens for word in words.words] == [(1,), (2,), (3,), (4,), (5,)]
    assert (words.length, words.limit, len(words.ids), len(words.content)) == (7, 77, 77, 7)
    assert words.pieces == ("<|startoftext|>", "a", "photo", "of", "a", "cat", "<|endoftext|>")
    padded = clip_tokenizer("a photo of a cat", padding="max_length", max_length=77, truncation=True)
    assert list(words.ids) == padded.input_ids
    assert words.truncated == ()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat, a dog!!", ["a", "cat", "a", "dog"]),
        ("don't touch the well-known o'clock", ["don't", "touch", "the", "well-known", "o'clock"]),
        ('"cat" (dog) black&white', ["cat", "dog", "black", "white"]),
        ("1.5 of 16:9, f/8.", ["1.5", "of", "16:9", "f", "8"]),
        ("  two   spaces\tand\na line ", ["two", "spaces", "and", "a", "line"]),
        ("étude e\u0301tude 猫 😀!", ["étude", "e\u0301tude", "猫", "😀"]),
        ("İstanbul ﬁsh straße", ["İstanbul", "ﬁsh", "straße"]),
        ("a <cat-toy>", ["a", "<cat-toy>"]),
    ],
)
def test_words_of_a_prompt(read: Read, prompt: str, expected: list[str]) -> None:
    words = read(prompt)
    assert texts(words) == expected
    assert all(words.find((word.start, word.end)) == word.tokens != () for word in words.words)


def test_selectors(read: Read) -> None:
    words = read("a Black cat, a red cat and a squirrel")
    assert words.find("black cat") == words.find((2, 11)) == (*words.find("black"), *words.words[2].tokens)
    assert words.find("cat#2") == words.find(5) == words.find("RED CAT")[1:] == words.words[5].tokens
    assert words.find("cat,") == (*words.find(2), words.find(2)[-1] + 1)
    assert words.find("cat, a") == tuple(range(words.find("cat#1")[0], words.find("a red")[0] + 1))
    assert words.find((3, 5)) == words.find("Black")
    assert words.find("squirrel") == words.words[-1].tokens


def test_composed_and_decomposed_characters_are_the_same(read: Read) -> None:
    assert read("an étude").find("e\u0301tude") == read("an e\u0301tude").find("ÉTUDE") != ()


def test_a_number_sign_of_the_prompt_itself(read: Read) -> None:
    assert read("the route#66 sign").find("route#66")[0] == 2


def test_word_not_found_lists_the_words_and_guesses(read: Read, clip_tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(WordNotFound) as caught:
        read("a squirrel eats a burger").find("squirel", 1)
    assert str(caught.value) == (
        "'squirel' is not a word of prompt 1, \"a squirrel eats a burger\".\n"
        "Words: a, squirrel, eats, burger. Did you mean 'squirrel'?"
    )
    with pytest.raises(WordNotFound, match="of prompt 3, .*\nWords: a, cat.$"):
        Words("a cat", clip_tokenizer, number=3).find("zebra")
    with pytest.raises(WordNotFound, match="Did you mean 'black cat'"):
        read("a black cat").find("blak cat")


@pytest.mark.parametrize(
    "selector", ["", " ", "zebra", "cat#3", "cat#0", "black", 9, -1, (0, 0), (3, 99), (-1, 3), (1, 2)]
)
def test_selectors_of_nothing(read: Read, selector: Any) -> None:
    with pytest.raises(WordNotFound, match=r"prompt"):
        read("a cat, a cat").find(selector)


def test_ambiguous(read: Read) -> None:
    with pytest.raises(AmbiguousWord, match='occurs 2 times .* Write "cat#1" or "cat#2"'):
        read("a cat and a cat").find("cat")
    with pytest.raises(ValueError, match="position"):
        read("a cat").find(True)


def test_a_long_prompt(read: Read) -> None:
    words = read(" ".join(["cat"] * 74 + ["squirrel", "dog,", "dog"]))
    assert (words.length, len(words.ids), len(words.units)) == (77, 77, 78)
    assert words.ids[-1] == words.ids[76] != words.ids[75]
    assert [word.text for word in words.truncated] == ["dog", "dog"]
    assert words.find("squirrel") == (75,)
    for selector in ("dog#1", "dog,", 76, "squirrel dog"):
        with pytest.raises(TruncatedWord, match="77 tokens"):
            words.find(selector)


def test_a_word_cut_in_the_middle(read: Read) -> None:
    words = read(" ".join(["cat"] * 74 + ["zzz"]))
    assert words.words[-1].tokens == (75,)
    assert words.truncated == (words.words[-1],)


@pytest.mark.parametrize("prompt", ["", "  ", "\n\t"])
def test_empty_prompts(clip_tokenizer: CLIPTokenizer, prompt: str) -> None:
    with pytest.raises(ValueError, match="at least one word"):
        Words(prompt, clip_tokenizer)
    words = Words(prompt, clip_tokenizer, allow_empty=True)
    assert (words.words, words.length, len(words.ids)) == ((), 2, 77)
    with pytest.raises(WordNotFound):
        words.find("cat")


def test_unusable_prompts_and_tokenizers(clip_tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(ValueError, match="valid Unicode"):
        Words("a \ud800", clip_tokenizer)
    with pytest.raises(ValueError, match="fast tokenizer"):
        Words("a", object())
    endless = CLIPTokenizer(vocab=clip_tokenizer.get_vocab(), merges=[])
    with pytest.raises(ValueError, match="model_max_length"):
        Words("a", endless)


def test_words_are_values(read: Read) -> None:
    assert read("a cat") == read("a cat") != read("a dog")
    assert hash(read("a cat")) == hash(read("a cat"))


@given(prompt=anything)
def test_any_text(read: Read, clip_tokenizer: CLIPTokenizer, prompt: str) -> None:
    """Units are disjoint, ordered and hold every token once; a unit's tokens spell it, composed and in lower case."""
    words = read(prompt)
    units = words.units
    assert all(a.end <= b.start for a, b in zip(units, units[1:], strict=False))
    assert all(unit.text == prompt[unit.start : unit.end] and not unit.text.isspace() for unit in units)
    tokens = [token for unit in units for token in unit.tokens]
    assert tokens == list(range(1, words.length - 1))
    for chunk in words.chunks:
        ids = [words.ids[token] for unit in chunk for token in unit.tokens]
        if set(chunk).isdisjoint(words.truncated) and max((t for u in chunk for t in u.tokens), default=0) < 75:
            text = unicodedata.normalize("NFC", prompt[chunk[0].start : chunk[-1].end])
            spelt = clip_tokenizer.decode(ids).replace(" ", "")
            assert spelt == "".join(character.lower() for character in text)


def test_a_token_of_spaces_belongs_to_the_word_that_follows() -> None:
    tokenizer = t5_tokenizer()
    words = Words("a cat riding a zebra!  eating ", tokenizer)
    names = tokenizer.convert_ids_to_tokens(list(words.ids))
    lone = [place for place, name in enumerate(names) if name == "▁"]
    assert len(lone) == 5, "markers before riding, before zebra, twice before eating, and one behind everything"
    owner = {token: unit.text for unit in words.units for token in unit.tokens}
    assert [owner[place] for place in lone] == ["riding", "zebra", "eating", "eating", "eating"]
    assert [names[token] for token in words.find("riding")] == ["▁", "ri", "d", "in", "g"]
    assert words.find("cat")[-1] + 1 == words.find("riding")[0]
    assert Words("  cat", tokenizer).find("cat") == (0, 1, 2)


def test_tokens_without_a_letter_of_a_word() -> None:
    """Offsets of (0, 0), as some tokenizers give a marker, and of nothing inside a word."""
    spans = [(0, 3), (4, 6), (6, 7)]  # "cat by!"
    assert owners([(0, 0), (0, 3), (3, 3), (4, 6), (6, 7)], range(5), spans, 7) == [(0, 1), (2, 3), (4,)]
    assert owners([(0, 3), (4, 4), (4, 5), (5, 5), (5, 6), (6, 7)], range(6), spans, 7) == [(0,), (1, 2, 3, 4), (5,)]
    assert owners([(0, 1), (1, 2)], range(2), [], 2) == []


@given(prompt=anything)
def test_any_text_of_t5(prompt: str) -> None:
    """Units hold every token once and in order, and none begins with its neighbour's characters."""
    tokenizer = t5_tokenizer()
    words = Words(prompt, tokenizer)
    offsets = tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    assert [token for unit in words.units for token in unit.tokens] == list(range(words.length - 1))
    for unit in words.units:
        for token in unit.tokens:
            start, end = offsets[token]
            assert start < unit.end or not prompt[start:end].strip(), "only trailing spaces stand behind their word"
            assert end >= unit.start or not prompt[start:end].strip()


@given(prompt=anything)
def test_any_word_is_found_at_its_place(read: Read, prompt: str) -> None:
    words = read(prompt)
    for index, word in enumerate(words.words):
        if word in words.truncated or not word.tokens:
            with pytest.raises((TruncatedWord, WordNotFound)):
                words.find(index)
            continue
        assert words.find(index) == word.tokens
        same = [run[0] for run in words.occurrences(word.text)]
        assert word in same
        if len(same) == 1:
            assert words.find(word.text) == word.tokens
        elif "#" not in word.text:
            assert words.find(f"{word.text}#{same.index(word) + 1}") == word.tokens


@given(prompt=plain)
def test_spans_are_the_authors_on_plain_prompts(read: Read, clip_tokenizer: CLIPTokenizer, prompt: str) -> None:
    words = read(prompt)
    assert len(words.chunks) == len(prompt.split(" "))
    for place, chunk in enumerate(words.chunks):
        expected = references.word_positions(prompt, place, clip_tokenizer)
        assert [token for unit in chunk for token in unit.tokens] == expected

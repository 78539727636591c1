"""The kind of edit that two prompts ask for."""

from __future__ import annotations

import pytest

from promptweave.words import Words
from promptweave.words.edit_kinds import change, region_words

CASES = [
    ("a photo of a cat", "a photo of a dog", "swap", ("cat",), ("dog",), ("dog",)),
    ("a cat on a chair", "a cat on a sofa", "swap", ("chair",), ("sofa",), ("sofa",)),
    ("a red car and a red bus", "a red car and a blue bus", "colour", ("red#2",), ("blue",), ("bus",)),
    ("a photo of a car", "a photo of a yellow car", "colour", (), ("yellow",), ("car",)),
    ("a cat on a beach", "a cat in the snow", "background", ("beach",), ("snow",), ("snow",)),
    ("a cat", "a cat in the snow at night", "background", (), ("snow", "night"), ("snow", "night")),
    ("a photo of a cat", "an oil painting of a cat", "style", ("photo",), ("oil", "painting"), ()),
    ("a lion", "a lion in the style of van gogh", "style", (), ("style", "van", "gogh"), ()),
    ("a cat at night", "a cat wearing a hat at night", "addition", (), ("hat",), ("hat",)),
    ("a cat wearing a hat", "a cat", "removal", ("hat",), (), ("hat",)),
]


@pytest.mark.parametrize(("source", "target", "kind", "old", "new", "region"), CASES)
def test_the_kind_of_edit_and_its_words(tokenizer, source, target, kind, old, new, region) -> None:
    words = Words(source, tokenizer), Words(target, tokenizer)
    found = change(*words)
    assert (found.kind, found.old, found.new) == (kind, old, new)
    assert region_words(found, words[1]) == region
    assert not set(found.kept) & {*found.new}


def test_weights_are_a_kind_of_their_own(tokenizer) -> None:
    words = Words("a house in the snow", tokenizer)
    assert change(words, words, ["snow"]).kind == "weight" and change(words, words, ["snow"]).old == ("snow",)


def test_every_pair_of_the_world_has_its_kind() -> None:
    """The words alone tell what the scenes say."""
    from promptweave.models.load import load_cached
    from promptweave.world.counterfactuals import KINDS, counterfactuals

    kinds = dict(
        zip(KINDS, ("swap", "colour", "background", "style", *["addition"] * 2, "removal", "weight"), strict=True)
    )
    model = load_cached("toybox")
    for pair in counterfactuals("tuning", kinds=tuple(KINDS), count=80):
        weighted = [word for word, _ in pair.weights]
        assert change(model.words(pair.source), model.words(pair.target), weighted).kind == kinds[pair.kind]

"""The fixed pairs of scenes: what the file holds, and what is known of each pair exactly."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from promptweave.benchmarks.judging import oracle
from promptweave.world.counterfactuals import (
    KINDS,
    PROMPTED,
    SPLITS,
    WEIGHTED,
    as_line,
    counterfactuals,
    drawn,
    file_text,
    grown,
    made,
    read_line,
)


@pytest.fixture(scope="module")
def tuning():
    return counterfactuals("tuning", kinds=tuple(KINDS))


def test_the_splits_share_no_pair_and_hold_all_kinds_in_turn(tuning):
    test = counterfactuals("test", kinds=tuple(KINDS))
    assert not {(p.source, p.scene) for p in tuning} & {(p.source, p.scene) for p in test}
    for pairs in (tuning, test):
        assert [pair.kind for pair in pairs] == list(KINDS) * 24
        assert [pair.number for pair in pairs] == list(range(len(pairs)))
        assert sum(pair.unsaid for pair in pairs) == len(pairs) // 3
    assert [pair.kind for pair in counterfactuals(count=7)] == list(PROMPTED)


def test_the_file_is_what_its_maker_makes(tuning):
    for split in SPLITS:
        assert tuple(made(split, 1, oracle().look)) == counterfactuals(split, kinds=tuple(KINDS), count=8)
    text = file_text({"tuning": tuning[:3], "test": ()})
    assert [read_line(line, "tuning") for line in json.loads(text)["tuning"]] == list(tuning[:3])
    assert set(as_line(tuning[0])["other"]) == {"things"}


def test_the_oracle_sees_each_edit_in_its_counterfactual_alone(tuning):
    pairs = tuning[8:32]
    before = oracle().look(np.stack([pair.drawn for pair in pairs]))
    after = oracle().look(np.stack([pair.wanted for pair in pairs]))
    assert all(pair.success(sight) for pair, sight in zip(pairs, after, strict=True))
    assert not any(pair.success(sight) for pair, sight in zip(pairs, before, strict=True))


def test_outside_the_region_the_two_images_are_one(tuning):
    for pair in tuning[:64]:
        apart = np.abs(pair.drawn.astype(int) - pair.wanted).max(-1)
        assert apart[pair.region].max() > 8, pair.name
        if not pair.region.all():  # the most common value of a painting's filter may tip over a little further away
            assert (apart[~pair.region] > 15).mean() <= (0.02 if pair.scene.style == "painting" else 0), pair.name
    styles = [pair for pair in tuning if pair.kind == "style change"]
    assert all(pair.region.all() and not pair.nouns for pair in styles)


def test_prompts_say_what_changes_and_sometimes_no_more(tuning):
    for pair in tuning:
        assert (pair.source == pair.target) == (pair.kind == WEIGHTED) == bool(pair.weights)
    backgrounds = [pair for pair in tuning if pair.kind == "background change" and pair.unsaid]
    assert backgrounds and all(pair.target.startswith(f"{pair.source} ") for pair in backgrounds)
    silent = [pair for pair in tuning if pair.kind == "colour change" and pair.old[0].colour is None]
    assert 6 <= len(silent) <= 18


def test_what_the_set_does_not_have_is_said():
    with pytest.raises(ValueError, match="Splits are 'tuning' and 'test'. Received 'train'"):
        counterfactuals("train")
    with pytest.raises(ValueError, match="Kinds of edits are 'object swap'.*Received 'pose'"):
        counterfactuals(kinds=("pose",))
    with pytest.raises(
        ValueError, match="has 24 pairs of these kinds. Received a count of 25 from pair 0, .*Take 1 to 24"
    ):
        counterfactuals(kinds=("object swap",), count=25)


def test_a_mask_grows_on_all_sides():
    mask = np.zeros((7, 9), bool)
    mask[3, 4] = True
    assert grown(mask, 2).sum() == 25 and grown(mask, 2)[1:6, 2:7].all()
    assert np.array_equal(grown(mask, 0), mask)


def test_pairs_of_one_kind_are_drawn_for_other_seeds_too():
    pair = drawn("thing removed", random.Random(5), 3, "test", unsaid=True)
    assert pair.unsaid and len(pair.scene.things) == 2 and len(pair.other.things) == 1 and not pair.new

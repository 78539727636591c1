"""The benchmark of inpainting: its pairs, its masks, and one row of each kind."""

from __future__ import annotations

import random
from functools import partial

import numpy as np

from promptweave.benchmarks import bench_inpainting as bench
from promptweave.benchmarks.bench_inpainting import (
    MASKED,
    STEERED,
    Pair,
    bench_inpainting,
    boxed,
    cells,
    grown,
    inpainting_sheet,
)
from promptweave.editing.found_masks import DiffEditMask
from promptweave.models.load import load_cached
from promptweave.world.scene import COLOURS, TINTABLE


def test_pairs_differ_in_one_thing():
    for number in range(8):
        pair = Pair.drawn("another colour", random.Random(number))
        before, after = (scene.things[pair.index] for scene in (pair.scene, pair.other))
        assert before.noun == after.noun and before.noun in TINTABLE
        assert before.colour is None and after.colour in COLOURS and pair.gone is None
        assert np.array_equal(*pair.outlines)
        swapped = Pair.drawn("another thing", random.Random(number))
        assert swapped.scene.things[swapped.index].noun == swapped.gone != swapped.other.things[swapped.index].noun


def test_masks_are_grown_and_boxed():
    mask = np.zeros((9, 12), bool)
    mask[3, 4] = mask[5, 7] = True
    box = boxed(mask)
    assert box.sum() == 3 * 4 and box[3:6, 4:8].all()
    wide = grown(mask, 2)
    assert wide.sum() == 2 * 25 - 3 * 2 and wide[1:6, 2:7].all() and wide[3:8, 5:10].all()


def test_a_pair_is_judged_in_all_ways(monkeypatch):
    monkeypatch.setattr(bench, "DiffEditMask", partial(DiffEditMask, noises=1))
    rows, shown = next(bench_inpainting(load_cached("toybox"), ("another colour",), count=1, steps=2, guidance=2))
    assert [row.how for row in rows] == [*MASKED, *STEERED]
    assert all(10 < row.outside < 60 and 0 <= row.outline <= 1 and row.inside > 0 for row in rows)
    inside = {row.how: row.outside for row in rows}
    assert inside[MASKED[0]] > inside[STEERED[0]], "outside a mask nothing changes"
    assert len(cells(rows)) == 6 and inpainting_sheet([shown]).width > 6 * 128

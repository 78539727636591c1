"""What is computed from maps, against values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from promptweave.view.aggregate import aggregated, enlarged, shared_out
from promptweave.view.components import at_pixel, components, spread
from promptweave.view.heat import BOTH_WAYS, signed
from promptweave.view.names import clamped
from promptweave.view.numbers import entropy, evenness, hottest, iou, share


def test_the_aggregate_of_constant_maps_is_the_constant():
    coarse, fine = torch.full((2, 3, 4), 0.25), torch.full((4, 6, 4), 0.25)
    found = aggregated([coarse, fine], [1, 3], (8, 12))
    torch.testing.assert_close(found, torch.full((8, 12, 4), 0.25))  # bicubic weights sum to 1


def test_layers_weigh_alike_whatever_their_grid():
    found = aggregated([torch.full((2, 3, 1), 1.0), torch.full((4, 6, 1), 5.0)], [1, 3], (4, 6))
    torch.testing.assert_close(found, torch.full((4, 6, 1), 4.0))  # (1 + 3 * 5) / 4


def test_the_undershoot_of_bicubic_interpolation_is_cut_off():
    spike = torch.zeros(4, 4, 1)
    spike[1, 1] = 1
    raw = torch.nn.functional.interpolate(spike.movedim(-1, 0)[None], size=(16, 16), mode="bicubic")
    assert raw.min() < -0.01 and enlarged(spike, (16, 16)).min() == 0


def test_shares_of_the_words_sum_to_one():
    maps = torch.tensor([[[0.5, 0.1, 0.3, 0.1]]])
    torch.testing.assert_close(shared_out(maps, [1, 2])[0, 0, 1:3], torch.tensor([0.25, 0.75]))
    assert torch.isfinite(shared_out(torch.zeros(1, 1, 4), [1, 2])).all()


def test_components_are_orthonormal_and_find_the_group():
    attention = torch.full((4, 5, 20), 0.01)
    attention.view(20, 20)[:6, :6] = 1.0  # the first six pixels look at one another
    attention = attention + 0.001 * torch.rand(4, 5, 20, generator=torch.Generator().manual_seed(0))
    found = components(attention, 5).flatten(1)
    torch.testing.assert_close(found @ found.T, torch.eye(5), atol=1e-5, rtol=0)
    assert set(found[0].topk(6).indices.tolist()) == set(range(6))
    rows = attention.view(20, 20) - attention.view(20, 20).mean(1, keepdim=True)
    torch.testing.assert_close((rows @ found[0]).norm(), torch.linalg.svdvals(rows)[0])
    assert spread(found[0]).min() == 0 and spread(found[0]).max() == 1 and not spread(torch.ones(3)).any()
    with pytest.raises(ValueError, match="a map for each of the 20 pixels. Received maps of 7"):
        components(torch.zeros(4, 5, 7))
    with pytest.raises(ValueError, match="1 to 20, .* Received 21"):
        components(attention, 21)


def test_the_map_of_a_pixel():
    attention = torch.arange(6.0 * 6).reshape(2, 3, 6)
    assert at_pixel(attention, 0.99, 0.5).tolist() == [[30, 31, 32], [33, 34, 35]]  # row 1, column 2
    with pytest.raises(ValueError, match="Received x=1, y=0"):
        at_pixel(attention, 1, 0)


def test_numbers_of_maps():
    even, point = torch.full((4, 8), 0.2), torch.zeros(4, 8)
    point[2, 3] = 0.7
    assert entropy(even) == pytest.approx(math.log(32)) and evenness(even) == pytest.approx(1)
    assert entropy(point) == pytest.approx(0, abs=1e-9)
    assert entropy(torch.zeros(4, 8)) == 0
    assert share(even) == pytest.approx(0.2)
    half = torch.zeros(4, 8)
    half[:, :4] = 0.3
    assert entropy(half) == pytest.approx(math.log(16))
    wanted = torch.zeros(4, 8, dtype=torch.bool)
    wanted[:2] = True
    assert iou(hottest(half), wanted) == pytest.approx(8 / 24)
    assert iou(wanted & False, wanted & False) == 1
    with pytest.raises(ValueError, match="threshold must be in"):
        hottest(half, 1)
    with pytest.raises(ValueError, match="Regions must have equal shapes"):
        iou(wanted, wanted[:2])


def test_steps_that_are_none():
    assert clamped((50, 99, 3), 50) == {50: 49, 99: 49, 3: 3}
    with pytest.raises(ValueError, match="counted from 0, .* Received -1"):
        clamped((-1,), 5)


def test_differences_are_white_at_none_and_red_or_blue_at_the_ends():
    shades = signed(torch.tensor([[-0.1, 0.0, 0.1]]), (3, 1), 0.1)
    for column, colour in enumerate(BOTH_WAYS[[0, 2, 4]]):
        assert np.array_equal(shades[0, column], colour.astype(np.uint8))

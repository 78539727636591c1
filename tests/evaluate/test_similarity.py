"""Likeness of images to the eye: against torchmetrics, closed forms, and in the right order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from promptweave.evaluate.fronts import area_of, area_under, front
from promptweave.evaluate.similarity import feature_distance, structure_distance
from promptweave.evaluate.structural_similarity import ssim, whole_windows


def noise(seed, height=29, width=37):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_ssim_is_torchmetrics_where_a_window_lies_in_the_region():
    one = noise(0)
    two = np.clip(one.astype(int) + np.random.default_rng(1).integers(-40, 40, one.shape), 0, 255).astype(np.uint8)
    region = np.zeros(one.shape[:2], bool)
    region[:, 9:] = True
    pair = [torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None] for image in (one, two)]
    theirs = structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)[1][0].mean(0).numpy()
    assert ssim(one, two) == pytest.approx(float(theirs.mean()), abs=1e-5)
    assert ssim(one, two, region) == pytest.approx(float(theirs[whole_windows(region)].mean()), abs=1e-5)
    assert ssim(one, one) == pytest.approx(1.0) and ssim(one, two) < 0.99
    assert np.isnan(ssim(one, two, np.zeros_like(region)))
    spoilt = two.copy()
    spoilt[:, :9] = 0  # what lies outside the region has no say
    assert ssim(one, spoilt, region) == ssim(one, two, region)
    with pytest.raises(ValueError, match="equal shapes"):
        ssim(one, two[1:])


def test_distances_of_features_in_closed_form():
    one = torch.tensor([[[[3.0, 0.0]], [[0.0, 2.0]]]])  # two places, at a right angle
    two = torch.tensor([[[[5.0, 1.0]], [[0.0, 0.0]]]])  # both alike
    assert feature_distance([one], [two]) == pytest.approx((0 + 2) / 2)
    assert feature_distance([one, one], [two, one]) == pytest.approx(0.5)
    assert structure_distance(one, two) == pytest.approx((0 + 1 + 1 + 0) / 4)
    turned = torch.tensor([[[[0.0, 7.0]], [[1.0, 0.0]]]])  # other features, the same likeness between places
    assert structure_distance(one, turned) == pytest.approx(0) and feature_distance([one], [turned]) > 1


def test_a_front_is_what_no_other_point_excels():
    success, kept = [0.2, 0.6, 0.5, 0.9, np.nan, 0.9], [30.0, 28.0, 25.0, 20.0, 40.0, 19.0]
    assert front(success, kept) == [0, 1, 3]
    assert area_under(success, kept) == pytest.approx(0.2 * 30 + 0.4 * 28 + 0.3 * 20)
    assert np.isnan(area_under([np.nan], [1.0]))
    better = area_under([*success, 1.0], [*kept, 20.0])
    assert better == pytest.approx(area_under(success, kept) + 0.1 * 20)


def test_an_area_over_pairs_leaves_out_what_a_pair_does_not_define():
    success = np.array([[0, 1, 0, 1.0], [1, 1, 1, 1.0]])
    kept = np.array([[30, 32, np.nan, np.nan], [20, 22, np.nan, np.nan]])
    found = area_of(success, kept)
    assert found.value == pytest.approx(0.5 * 31 + 0.5 * 21) and 0 < found.error < 5
    assert area_of(success, kept).error == found.error

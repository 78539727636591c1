"""Distances by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from promptweave.evaluate.metrics import iou, layout, mse, psnr


def test_distances_by_hand():
    first, second = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)
    second[0, 0] = 51  # a fifth of the scale, in one of six pixels
    assert mse(first, second) == pytest.approx(0.04 / 6)
    assert psnr(first, second) == pytest.approx(-10 * math.log10(0.04 / 6))
    region = np.zeros((2, 3), bool)
    region[0] = True
    assert mse(first, second, region) == pytest.approx(0.04 / 3)
    assert psnr(first, second, ~region) == 60 and psnr(first, first) == 60
    assert math.isnan(psnr(first, second, np.zeros((2, 3), bool)))
    with pytest.raises(ValueError, match="equal shapes"):
        mse(first, second[:1])


def test_overlap_by_hand():
    a, b = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert iou(a, b) == pytest.approx(1 / 3) and iou(a, a) == 1 and iou(a, ~a) == 0
    assert math.isnan(iou(a & b & ~b, a & ~a))


def test_layout_is_about_outlines_not_colours():
    square, moved = np.zeros((2, 64, 64, 3), np.uint8)
    square[16:40, 16:40] = (200, 30, 30)
    moved[30:54, 30:54] = (200, 30, 30)
    assert layout(square, square) == pytest.approx(1)
    assert layout(square, 255 - square // 2) > 0.99
    assert layout(square, moved) < 0.2
    assert layout(square, np.zeros_like(square)) == 0

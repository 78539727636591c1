"""Sheets and heat maps."""

from __future__ import annotations

import numpy as np
import torch

from promptweave.view.heat import RAMP, coloured, heat, over
from promptweave.view.sheet import PAPER, font, sheet, wrapped


def test_colours_follow_the_ramp():
    values = np.array([[0.0, 0.5, 1.0]])
    shades = coloured(values)
    assert np.array_equal(shades[0, 0], RAMP[0].astype(np.uint8)) and np.array_equal(shades[0, 2], RAMP[-1])
    lightness = coloured(np.linspace(0, 1, 50)[None]).astype(float).sum(-1)[0]
    assert (np.diff(lightness) > -3).all(), "hotter is lighter"


def test_heat_is_relative_to_the_hottest_place_and_keeps_it_in_place():
    values = torch.zeros(4, 6)
    values[1, 4] = 0.02
    grown = heat(values, (60, 40))
    assert grown.shape == (40, 60) and 0.9 < grown.max() <= 1
    y, x = np.unravel_index(grown.argmax(), grown.shape)
    assert 10 <= y < 20 and 40 <= x < 50
    assert (heat(torch.zeros(4, 6), (8, 8)) == 0).all()
    picture = np.full((40, 60, 3), 200, np.uint8)
    shown = over(values, picture)
    assert shown.shape == picture.shape and shown[y, x].sum() > shown[0, 0].sum()


def test_a_sheet_shows_each_picture_and_its_label():
    red, blue = (np.full((64, 96, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    page = np.asarray(sheet([[red, blue], [blue, red]], [["one", "two"], ["three", "a label of several words " * 3]]))
    assert (page == (255, 0, 0)).all(-1).sum() == (page == (0, 0, 255)).all(-1).sum() == 2 * 192 * 288
    assert tuple(page[0, 0]) == PAPER
    plain = np.asarray(sheet([[red, blue], [blue, red]], [["", ""], ["", ""]]))
    assert page.shape[0] > plain.shape[0], "labels take room"
    assert (page.sum(-1) < 200).sum() > 100, "labels are drawn"


def test_labels_wrap_and_cut():
    lines = wrapped("a photo of a cat riding a bike", 100, 14)
    assert len(lines) > 1 and all(font(14).getlength(line) <= 100 for line in lines)
    assert " ".join(lines) == "a photo of a cat riding a bike"
    (cut,) = wrapped("x" * 200, 100, 14)
    assert cut.endswith("…") and font(14).getlength(cut) <= 100

"""Sheets, heat maps and animations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from promptweave.view.animate import save_animation
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


def test_a_film_has_even_sides_and_holds_its_last_frame(tmp_path, monkeypatch):
    import av

    from promptweave.view import animate

    frames = [Image.new("RGB", (33, 21), colour) for colour in ("red", "blue")]
    with av.open(str(save_animation(frames, tmp_path / "film.mp4", seconds=0.2))) as film:
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert film.streams.video[0].average_rate == 5
    assert len(shown) == 11 and shown[0].shape == (22, 34, 3)
    assert shown[0].mean((0, 1)).argmax() == 0 and shown[-1].mean((0, 1)).argmax() == 2

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(animate, "import_module", missing)
    with pytest.raises(ImportError, match=r"promptweave\[video\]"):
        save_animation(frames, tmp_path / "film.mp4")

"""The tab of the page in which a picture is dropped and words are clicked."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from promptweave.apps.web.perceiving import DEPTH, PHRASE, SEGMENTS, Perceiving
from promptweave.apps.web.studio import Studio
from promptweave.models.load import load_cached
from promptweave.world.render import render
from promptweave.world.scene import Scene, Thing

PARTS = SimpleNamespace(seen="seen", found="found", status="status")


@pytest.fixture(scope="module")
def tab():
    studio = Studio([load_cached("toybox")])
    yield Perceiving(studio, PARTS)
    studio.close()


def test_words_are_found_and_clicked(tab, tmp_path):
    scene = Scene(
        "grass", "photo", "riding", (Thing("car", 0.5, 0.94, 0.66, "red"), Thing("tiger", 0.5, 0.58, 0.47)), 3
    )
    picture, masks = render(scene)
    path = str(tmp_path / "a.png")
    Image.fromarray(picture).save(path)
    shown = tab.look("toybox", path, SEGMENTS, "")
    assert {"car", "tiger", "grass"} <= set(shown["found"]["choices"]) and "grass" in shown["status"]
    clicked = tab.chosen("toybox", path, SEGMENTS, "", ["car"])
    image = np.asarray(clicked["seen"].resize((256, 256 * clicked["seen"].height // clicked["seen"].width)))
    assert "car:" in clicked["status"] and "found" not in clicked, "the other words stay"
    on, off = masks[0].repeat(2, 0).repeat(2, 1), ~masks.any(0).repeat(2, 0).repeat(2, 1)
    assert image[:256][on].mean() > 1.5 * image[:256][off].mean(), "what is not clicked is dark"
    assert tab.look("toybox", path, PHRASE, "the red car")["status"].count("the red car")
    far = tab.look("toybox", path, DEPTH, "")
    assert "metres" in far["status"] and far["seen"].size[0] > 0


def test_what_cannot_be_seen_is_a_sentence(tab, tmp_path):
    assert "Drop a picture" in tab.look("toybox", None, SEGMENTS, "")["status"]
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    assert "Say what is meant" in tab.look("toybox", str(tmp_path / "a.png"), PHRASE, " ")["status"]
    (tmp_path / "b.png").write_bytes(b"no image")
    assert "must be a PNG" in tab.look("toybox", str(tmp_path / "b.png"), SEGMENTS, "")["status"]

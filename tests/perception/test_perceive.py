"""The heads that come with the package, the command, and segmentation by words, on scenes that no training has seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.perception.courses import judge
from promptweave.perception.perceive import opened
from promptweave.perception.perceiver import SHIPPED
from promptweave.perception.scenes import BEFORE, CLASSES, FAR, NEAR, UNSEEN, Scenes, depth, drawn, phrases, referred
from promptweave.world.render import render
from promptweave.world.scene import Scene, Thing

CAR = Scene("grass", "photo", "riding", (Thing("car", 0.5, 0.94, 0.66, "red"), Thing("tiger", 0.5, 0.58, 0.47)), 3)
TWINS = Scene("snow", "photo", "next to", (Thing("dog", 0.27, 0.88, 0.44), Thing("dog", 0.73, 0.88, 0.44)), 4)


def iou(a, b) -> float:
    return (a & b).sum() / (a | b).sum()


def test_the_shipped_heads_are_small_and_half_precision():
    files = sorted(SHIPPED.glob("*.safetensors"))
    assert [path.stem for path in files] == ["depth", "refer", "segment"]
    assert sum(path.stat().st_size for path in files) <= 3_000_000


@pytest.mark.parametrize(
    ("task", "key", "least", "most"),
    [("segment", "mIoU", 0.5, 1), ("refer", "mean IoU", 0.5, 1), ("depth", "RMSE", 0, 1.3)],
)
def test_the_shipped_heads_answer_unseen_scenes(task, key, least, most):
    figures = judge(opened(task, None, "toybox"), Scenes(task, 8, UNSEEN + 5))
    assert least <= figures[key] <= most


def test_segments_and_phrases_find_the_things():
    picture, masks = render(CAR)
    segments = pw.perceive(picture, "segment")
    for thing, mask in zip(CAR.things, masks, strict=True):
        assert iou(segments.answer == CLASSES.index(thing.noun), mask) > 0.6
        assert iou(pw.perceive(picture, "refer", phrase=f"the {thing.noun}").answer, mask) > 0.6
    left, right = render(TWINS)[1]
    seen = [
        pw.perceive(render(TWINS)[0], "refer", phrase=f"the dog on the {side}").answer for side in ("left", "right")
    ]
    assert iou(seen[0], left) > 0.5 and iou(seen[1], right) > 0.5


def test_images_of_any_size_and_form(tmp_path):
    picture = Image.fromarray(render(CAR)[0])
    small = pw.perceive(picture, "segment").answer
    path = tmp_path / "large.png"
    picture.resize((300, 300)).save(path)
    large = pw.perceive(path, "segment").answer
    assert large.shape == (300, 300) and large.dtype == np.uint8
    again = np.asarray(Image.fromarray(large).resize((128, 128), Image.Resampling.NEAREST))
    assert (again == small).mean() > 0.9
    assert pw.perceive(torch.rand(3, 70, 130), "segment").answer.shape == (70, 130)


def test_depth_is_nearer_below_and_a_thing_stands_where_its_foot_is():
    picture, masks = render(CAR)
    metres = pw.perceive(picture, "depth").answer
    truth = depth(CAR, masks)
    assert metres.shape == truth.shape and metres.dtype == np.float32
    assert metres[:40].mean() > 2 * metres[-20:].mean()
    for mask in masks:
        assert abs(np.median(metres[mask]) - np.median(truth[mask])) < 0.5


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--task", "segment"), "segment"), (("--task", "refer", "--phrase", "the red car"), "refer"),
        (("--words", "tiger,car"), "segment"),
    ],
)  # fmt: skip
def test_the_command_writes_pictures_and_arrays(tmp_path, capsys, arguments, names):
    picture, masks = render(CAR)
    Image.fromarray(picture).save(tmp_path / "a.png")
    with pytest.raises(SystemExit) as end:
        main(["perceive", str(tmp_path / "a.png"), *arguments, "-o", str(tmp_path / "out"), "--json"])
    assert end.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["task"] == names and len(said["files"]) == 3
    values = np.load(tmp_path / "out" / f"{names}.npy")
    out = tmp_path / "out"
    with Image.open(out / f"{names}-bare.png") as image, Image.open(out / f"{names}.png") as overlay:
        bare, width = np.asarray(image), overlay.width
    assert values.shape == bare.shape == (128, 128)
    if names == "refer":
        assert ((bare == 255) == values).all() and iou(values, masks[0]) > 0.6
    else:
        assert (bare == values).all() and said["shares"]
    if "--words" in arguments:
        assert iou(values == 1, masks[1]) > 0.3 and iou(values == 2, masks[0]) > 0.3
    assert width >= 192
    with pytest.raises(SystemExit) as end:
        main(["perceive", str(tmp_path / "a.png"), *arguments, "-o", str(tmp_path / "out")])
    assert end.value.code != 0 and "--force" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"words": ["cat"], "task": "depth"}, "without a trained head"), ({"words": []}, "list of different words"),
        ({"words": ["cat", "cat"]}, "list of different words"), ({"words": ["ground"]}, "none of them 'ground'"),
        ({"words": ["cat"], "flip": False}, "nor flip"),
        ({"task": "refer", "phrase": "a cat", "flip": True}, "left or right"),
    ],
)  # fmt: skip
def test_words_that_cannot_act_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        pw.perceive(render(CAR)[0], **{"task": "segment", **given})


def test_phrases_fit_one_thing_and_depth_is_in_order():
    import random

    for index in range(60):
        scene = drawn(3, index, twins=True)
        masks = render(scene)[1]
        for number in range(len(scene.things)):
            own = phrases(scene, number)
            others = {p for other in range(len(scene.things)) if other != number for p in phrases(scene, other)}
            assert own and not set(own) & others
        number, phrase = referred(scene, random.Random(index))
        assert phrase in phrases(scene, number)
        metres = depth(scene, masks)
        assert metres.dtype == np.float32 and metres.min() >= BEFORE * NEAR and metres.max() <= FAR + 1e-5
        assert (metres[0][~masks[:, 0].any(0)] > FAR - 1e-4).all(), "the sky is far"
        if scene.relation != "next to" and len(scene.things) == 2 and masks.any((1, 2)).all():
            assert metres[masks[1]].max() < metres[masks[0]].min(), "what is drawn later is nearer"
    samples = [Scenes("refer", 4, 9)[i] for i in (2, 2)]
    assert np.array_equal(samples[0].picture, samples[1].picture) and samples[0].phrase == samples[1].phrase

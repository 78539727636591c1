"""The readers of data sets, on miniature folders in their standard layouts, and the measures."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from promptweave.evaluate.vision import depth_measures, mask_measures, region_measures
from promptweave.perception.courses import Course
from promptweave.perception.lessons import Lessons
from promptweave.perception.readers import ADE20K, BadData, NYUv2, RefCOCO, eigen_crop, region_mask
from promptweave.perception.samples import IGNORED

RNG = np.random.default_rng(0)


def write(path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture()
def ade(tmp_path):
    for split, count in (("training", 2), ("validation", 1)):
        for number in range(count):
            name = f"ADE_{split[:5]}_{number:08d}"
            write(tmp_path / "images" / split / f"{name}.jpg", RNG.integers(0, 255, (6, 8, 3), np.uint8))
            write(tmp_path / "annotations" / split / f"{name}.png", np.arange(48, dtype=np.uint8).reshape(6, 8) % 4)
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName", "1\t0.1\t1\t1\t1\twall", "2\t0.1\t1\t1\t1\tbuilding, edifice"]
    (tmp_path / "objectInfo150.txt").write_text("\n".join([*lines, "3\t0.1\t1\t1\t0\tdoor;double door"]))
    return tmp_path


def test_ade20k(ade):
    data = ADE20K(ade)
    assert len(data) == 2 and data.classes == ("wall", "building", "door") and len(ADE20K(ade, "val")) == 1
    sample = data[0]
    assert sample.picture.shape == (6, 8, 3) and sample.picture.dtype == np.uint8 and sample.target.dtype == np.int64
    assert sample.target[0, :4].tolist() == [IGNORED, 0, 1, 2]
    with pytest.raises(BadData, match="splits train, val. Received 'test'"):
        ADE20K(ade, "test")
    with pytest.raises(BadData, match="is expected at"):
        ADE20K(ade / "images")
    (ade / "objectInfo150.txt").write_text("Idx\tName\n1\twall")
    with pytest.raises(BadData, match="label 3, and there are 1 classes"):
        ADE20K(ade)[0]
    write(ade / "annotations" / "training" / "ADE_train_00000001.png", np.zeros((3, 3), np.uint8))
    with pytest.raises(BadData, match="must have one size"):
        ADE20K(ade)[1]


REFERENCES = [
    {"ref_id": 1, "ann_id": 7, "image_id": 3, "split": "train", "sentences": [{"sent": "left cup"}, {"sent": "cup"}]},
    {"ref_id": 2, "ann_id": 8, "image_id": 3, "split": "testA", "sentences": [{"sent": "the dog"}]},
]


@pytest.fixture()
def coco(tmp_path):
    place = tmp_path / "refcoco"
    place.mkdir()
    runs = {"size": [6, 8], "counts": [6, 12, 30]}  # the second and third columns
    instances = {
        "images": [{"id": 3, "file_name": "COCO_train2014_000000000003.jpg", "height": 6, "width": 8}],
        "annotations": [
            {"id": 7, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}, {"id": 8, "segmentation": runs},
        ],
    }  # fmt: skip
    (place / "instances.json").write_text(json.dumps(instances))
    (place / "refs(unc).p").write_bytes(pickle.dumps(REFERENCES, protocol=2))
    image = RNG.integers(0, 255, (6, 8, 3), np.uint8)
    write(tmp_path / "images" / "mscoco" / "images" / "train2014" / "COCO_train2014_000000000003.jpg", image)
    return tmp_path


def test_refcoco(coco):
    data = RefCOCO(coco)
    assert len(data) == 2 and [data[i].phrase for i in (0, 1)] == ["left cup", "cup"]
    assert data[0].target.sum() == 12 and data[0].target[1:4, 1:5].all()
    other = RefCOCO(coco, "testA")[0]
    assert other.phrase == "the dog" and other.target[:, 1:3].all() and other.target.sum() == 12
    with pytest.raises(BadData, match="splits testA, train. Received 'val'"):
        RefCOCO(coco, "val")
    with pytest.raises(BadData, match="refcoco, refcoco\\+, refcocog"):
        RefCOCO(coco, collection="coco")
    with pytest.raises(BadData, match="references by google is expected"):
        RefCOCO(coco, split_by="google")


def test_a_reference_file_cannot_run_code(coco, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    (coco / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(BadData, match="could run code"):
        RefCOCO(coco)
    assert not (tmp_path / "made").exists()
    (coco / "refcoco" / "refs(unc).p").write_bytes(b"\x80\x02]q\x00(")
    with pytest.raises(BadData, match="cannot be read"):
        RefCOCO(coco)
    (coco / "refcoco" / "refs(unc).json").write_text(json.dumps(REFERENCES))
    assert len(RefCOCO(coco)) == 2


def test_run_lengths_as_text_are_those_of_coco():
    """The text that COCO's own encoder gives for the runs 6, 12, 30 (6 -> '6', 12 -> '<', 30 -> 'n0')."""
    mask = region_mask({"size": [6, 8], "counts": "6<n0"}, (6, 8))
    assert mask[:, 1:3].all() and mask.sum() == 12
    runs = [3, 5, 2, 4, 34]  # from the fourth number on, differences to two places before: 4 - 5 = -1, 34 - 2 = 32
    text = "352" + "O" + "P1"
    assert np.array_equal(
        region_mask({"size": [6, 8], "counts": text}, (6, 8)), region_mask({"size": [6, 8], "counts": runs}, (6, 8))
    )
    with pytest.raises(BadData, match="do not fit"):
        region_mask({"size": [6, 8], "counts": [3, 5]}, (6, 8))


def test_nyuv2(tmp_path):
    lines = []
    for number in range(2):
        names = [f"living_room_000{number}b/{what}_0000{number}" for what in ("rgb", "sync_depth")]
        write(tmp_path / f"{names[0]}.jpg", RNG.integers(0, 255, (6, 8, 3), np.uint8))
        write(tmp_path / f"{names[1]}.png", np.array([[0, 2500, 10000] + [1] * 5] * 6, dtype=np.uint16))
        lines.append(f"/{names[0]}.jpg /{names[1]}.png 518.8579")
    (tmp_path / "nyu_train.txt").write_text("\n".join(lines))
    data = NYUv2(tmp_path)
    assert len(data) == 2 and data.classes == ("living room",)
    sample = data[1]
    assert sample.kind == "living room" and sample.target.dtype == np.float32
    np.testing.assert_allclose(sample.target[0, :3], [0, 2.5, 10])
    with pytest.raises(BadData, match="nyu_test.txt"):
        NYUv2(tmp_path, "val")
    (tmp_path / "nyu_test.txt").write_text("one\n")
    with pytest.raises(BadData, match="Line 1 has one part"):
        NYUv2(tmp_path, "test")
    kept = eigen_crop(np.ones((480, 640), np.float32))
    assert kept.sum() == (471 - 45) * (601 - 41) and kept[45, 41] == 1 and kept[44, 41] == 0


def test_a_course_reads_the_folder_of_its_task(ade, tiny):
    course = Course("segment", ade, size=(32, 32), width=16)
    plan = course.plan(tiny, course.examples(), Lessons(steps=0, through=1))
    assert plan.mirrored and not course.plan(tiny, course.examples(), Lessons()).mirrored
    assert plan.classes == ("wall", "building", "door") and plan.width == 16 and plan.templates[0] == "{}"
    assert len(course.examples(unseen=True)) == 1
    for course, said in (
        (Course("segment", width=16), "width acts only with a data set"),
        (Course("segment", ade, scenes=5), "scenes acts only with scenes of the world"),
        (Course("segment", ade, collection="refcocog"), "collection acts only with RefCOCO"),
    ):
        with pytest.raises(ValueError, match=said):
            course.check()


def test_mean_iou_counts_the_classes_that_occur():
    measure = region_measures(("a", "b", "c", "d"))
    target = np.array([[0, 0, 1, IGNORED]])
    measure.add(np.array([[0, 1, 1, 3]]), target)
    measure.add(np.array([[2, 0]]), np.array([[0, 0]]))
    found = measure.figures()
    assert found["mIoU"] == pytest.approx((2 / 4 + 1 / 2 + 0) / 3) and found["pixel accuracy"] == pytest.approx(3 / 5)


def test_overall_and_mean_iou_of_masks():
    measure = mask_measures()
    measure.add(np.array([[1, 1, 0, 0]]), np.array([[1, 0, 0, 0]]))
    measure.add(np.array([[1, 1, 1, 0]]), np.array([[1, 1, 1, 0]]))
    measure.add(np.array([[0, 0]]), np.array([[0, 0]]))
    assert measure.figures() == pytest.approx({"overall IoU": 4 / 5, "mean IoU": (0.5 + 1 + 1) / 3, "P@0.5": 2 / 3})


def test_depth_measures_are_their_formulas():
    answer, target = np.array([[2.0, 4.0, 1.0, 9.0]]), np.array([[2.0, 2.0, 0.0, 20.0]])
    measure = depth_measures(10)
    measure.add(answer, target)
    found = measure.figures()
    assert found["RMSE"] == pytest.approx(2**0.5) and found["REL"] == pytest.approx(0.5)
    assert found["log10"] == pytest.approx(np.log10(2) / 2)
    assert (found["delta1"], found["delta2"], found["delta3"]) == (0.5, 0.5, 0.5)

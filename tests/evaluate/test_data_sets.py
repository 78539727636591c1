"""Readers of other data sets, each on a miniature that the test writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptweave.evaluate.data_sets import read_data
from promptweave.evaluate.edit_pairs import BadData


def picture(path: Path, value: int = 90, alpha: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((6, 8, 3), value, np.uint8)
    pixels[2:4, 3:6] = 255
    image = Image.fromarray(pixels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    image.save(path)
    return path


def test_tedbench_takes_captions_and_else_the_names_of_files(tmp_path: Path) -> None:
    entries = [
        {"img_name": name, "target_text": "A photo of a sitting dog."} for name in ("dog2_standing.png", "cat.jpeg")
    ]
    (tmp_path / "input_list.json").write_text(json.dumps(entries))
    (tmp_path / "captions.json").write_text('{"cat.jpeg": "a photo of a cat"}')
    name, (dog, cat) = read_data(tmp_path)
    assert (name, dog.source, cat.source) == ("tedbench", "a photo of dog standing", "a photo of a cat")
    assert "name of the file" in dog.note and not cat.note
    assert dog.image == tmp_path / "originals/dog2_standing.png" and dog.target == "A photo of a sitting dog."
    assert dog.mask is None and dog.name == "000-dog2_standing"


def test_magicbrush_masks_let_through(tmp_path: Path) -> None:
    turns = [{"input": "7-input.png", "mask": "7-mask1.png", "output": "7-output1.png", "instruction": "add a hat"}]
    (tmp_path / "edit_sessions.json").write_text(json.dumps({"7": turns}))
    said = {"7": {"7-input.png": "a cat", "7-output1.png": "a cat with a hat"}}
    (tmp_path / "global_descriptions.json").write_text(json.dumps(said))
    alpha = np.full((6, 8), 255, np.uint8)
    alpha[:2] = 0
    picture(tmp_path / "images/7/7-mask1.png", alpha=alpha)
    name, (pair,) = read_data(tmp_path, ("turn 1",))
    assert (name, pair.source, pair.target, pair.instruction) == (
        "magicbrush",
        "a cat",
        "a cat with a hat",
        "add a hat",
    )
    assert pair.mask is not None and pair.mask()[:2].all() and not pair.mask()[2:].any()
    assert pair.goal == tmp_path / "images/7/7-output1.png" and not pair.framed
    with pytest.raises(BadData, match="kinds of edits .* are turn 1"):
        read_data(tmp_path, ("turn 9",))


def test_a_folder_for_each_edit(tmp_path: Path) -> None:
    (
        picture(tmp_path / "b hat/source.jpg"),
        picture(tmp_path / "b hat/mask.png", 0),
        picture(tmp_path / "b hat/target.png"),
    )
    (tmp_path / "b hat/edit.json").write_text('{"source": "a cat", "target": "a dog", "instruction": "Swap."}')
    name, (pair,) = read_data(tmp_path)
    assert (name, pair.name, pair.instruction) == ("folders", "b hat", "Swap.")
    assert pair.image == tmp_path / "b hat/source.jpg" and pair.goal == tmp_path / "b hat/target.png"
    assert pair.mask is not None and pair.mask().sum() == 6
    (tmp_path / "b hat/mask.png").write_text("no image")
    with pytest.raises(BadData, match="cannot be read"):
        pair.mask()
    (tmp_path / "b hat/edit.json").write_text('{"source": "a cat"}')
    with pytest.raises(BadData, match="the text target"):
        read_data(tmp_path)


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    table = tmp_path / "edits.csv"
    table.write_text('﻿source,target,image,source_words\na cat,a dog,cat.png,cat\n"a hat, red",a crown,,\n', "utf-8")
    for path in (table, tmp_path):
        name, (one, two) = read_data(path)
        assert (name, one.name, one.image, one.words) == ("table", "0001", tmp_path / "cat.png", (("cat",), ()))
        assert (two.source, two.image) == ("a hat, red", None)
    for text, said in (
        ("source,goal,colour\n", "columns source and target"), ("source,target\na,\n", "Line 1 doesn't"),
        ("source,target,name\na,b,x/y\n", "letters, digits"), ("source,target,name\na,b,x\nc,d,x\n", "unique"),
        ("source,target\n", "holds no edits"),
    ):  # fmt: skip
        table.write_text(text)
        with pytest.raises(BadData, match=said):
            read_data(table)


def test_lists_of_prompts(tmp_path: Path) -> None:
    """T2I-CompBench's text files, and GenEval's lines of JSON."""
    (tmp_path / "color_val.txt").write_text("a green bench and a blue bowl\n\na red car\n")
    (tmp_path / "evaluation_metadata.jsonl").write_text('{"tag": "colors", "prompt": "a photo of a red bus"}\n')
    name, pairs = read_data(tmp_path)
    assert name == "prompts" and [pair.category for pair in pairs] == ["color_val", "color_val", "colors"]
    assert [pair.source for pair in pairs][1:] == ["a red car", "a photo of a red bus"]
    assert all(pair.target == "" and pair.image is None for pair in pairs)
    assert len(read_data(tmp_path / "color_val.txt")[1]) == 2


def test_other_things_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no data set"):
        read_data(tmp_path / "none")
    (tmp_path / "readme.md").write_text("x")
    with pytest.raises(BadData, match="not a data set"):
        read_data(tmp_path)

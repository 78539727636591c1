"""PIE-Bench's files: masks against their closed form, both layouts, and sentences for what breaks their rules."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from promptweave.evaluate.edit_pairs import BadData
from promptweave.evaluate.pie_bench import decoded, encoded, framed, read_pie_bench

ENTRY = {
    "image_path": "0_random_140/000000000000.jpg",
    "original_prompt": "a slanted mountain bicycle on the [gray] road",
    "editing_prompt": "a slanted [rusty] mountain bicycle on the [black] road",
    "editing_instruction": "Make the frame rusty", "editing_type_id": "0",
    "blended_word": "bicycle bicycle", "mask": [0, 3, 512, 2, 262140, 99],
}  # fmt: skip
PLUS = {  # as PIE-Bench++ writes it
    "image_path": "6_change_attribute_color_40/x.jpg", "source_prompt": "a cat on a chair",
    "target_prompt": "a [red] [dog] on a [metal] chair", "blended_words": ["cat,dog", "chair,chair"],
    "mask": "0 262144",
}  # fmt: skip


def written(folder: Path, entries: Any, name: str = "mapping_file.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(entries))
    return folder


def as_published(runs: list[int]) -> np.ndarray:
    """The mask of the published evaluation, pixel by pixel."""
    mask = np.zeros(512 * 512)
    for place in range(0, len(runs), 2):
        for step in range(min(runs[place + 1], 512 * 512 - runs[place])):
            mask[runs[place] + step] = 1
    mask = mask.reshape(512, 512)
    mask[0, :] = mask[-1, :] = mask[:, 0] = mask[:, -1] = 1
    return mask == 1


def test_an_entry_is_read_as_published(tmp_path: Path) -> None:
    (pair,) = read_pie_bench(written(tmp_path / "data", {"000000000000": ENTRY}))
    assert pair.source == "a slanted mountain bicycle on the gray road"
    assert pair.target == "a slanted rusty mountain bicycle on the black road"
    assert (pair.category, pair.words) == ("random", (("bicycle",), ("bicycle",)))
    assert pair.image == tmp_path / "data/annotation_images" / ENTRY["image_path"]
    assert pair.mask is not None and pair.framed
    assert (framed(pair.mask()) == as_published(ENTRY["mask"])).all()
    assert pair.mask()[0, :3].all() and not pair.mask()[0, 3:].any() and pair.mask()[-1, -4:].all()


def test_an_empty_mask_has_the_frame_alone(tmp_path: Path) -> None:
    (pair,) = read_pie_bench(written(tmp_path, {"a": {**ENTRY, "mask": [], "blended_word": ""}}))
    assert pair.mask is not None and not pair.mask().any()
    assert framed(pair.mask()).sum() == 2044 and pair.words == ((), ())


def test_the_other_layouts(tmp_path: Path) -> None:
    """TI2I has no masks, words or kinds; PIE-Bench++ has other keys; the archive has a folder around it."""
    ti2i = {name: ENTRY[name] for name in ("image_path", "original_prompt", "editing_prompt")}
    (pair,) = read_pie_bench(written(tmp_path / "ti2i", {"x": ti2i}, "mapping_file_ti2i_benchmark.json"))
    assert pair.mask is None and not pair.framed
    written(tmp_path / "outer/PIE-Bench_v1", {"y": PLUS})
    (pair,) = read_pie_bench(tmp_path / "outer")
    assert (pair.category, pair.words) == ("change colour", (("cat", "chair"), ("dog", "chair")))
    assert pair.mask is not None and pair.mask().all() and pair.target == "a red dog on a metal chair"
    assert read_pie_bench(tmp_path / "outer/PIE-Bench_v1/mapping_file.json")[0].name == "y"


def test_parquet_files_hold_their_images(tmp_path: Path) -> None:
    """PIE-Bench++ as it is given out today."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 10, 30)).save(file, "PNG")
    folder = tmp_path / "6_change_attribute_color_40"
    folder.mkdir()
    row = {**{name: PLUS[name] for name in ("source_prompt", "target_prompt", "mask")}, "id": "600000000000"}
    row |= {"image": {"bytes": file.getvalue(), "path": None}, "blended_words": "['cat,dog', 'chair,chair']"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), folder / "V1-00000-of-00001.parquet")
    (pair,) = read_pie_bench(tmp_path)
    assert (pair.name, pair.category) == (
        "600000000000",
        "change colour",
    ) and pair.target == "a red dog on a metal chair"
    assert pair.words == (("cat", "chair"), ("dog", "chair")) and pair.mask is not None and pair.mask().all()
    assert isinstance(pair.picture, Image.Image) and pair.picture.getpixel((0, 0)) == (200, 10, 30)
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{**row, "image": None}]), folder / "V1-00000-of-00001.parquet"
    )
    with pytest.raises(BadData, match="holds its image"):
        read_pie_bench(tmp_path)


def test_kinds_choose(tmp_path: Path) -> None:
    entries = {kind: {**ENTRY, "editing_type_id": kind} for kind in "0189"}
    folder = written(tmp_path, entries)
    assert [pair.name for pair in read_pie_bench(folder, ("change background", "1"))] == ["1", "8"]
    with pytest.raises(BadData, match="The kinds of PIE-Bench are 0 .random."):
        read_pie_bench(folder, ("background",))


@pytest.mark.parametrize(
    "entries",
    [
        {"a": {**ENTRY, "mask": [1]}}, {"a": {**ENTRY, "mask": [0, -1]}}, {"a": {**ENTRY, "mask": "0 x"}},
        {"a": {"image_path": "x"}}, {"a": []}, [ENTRY], {}, {"../a": ENTRY},
    ],
)  # fmt: skip
def test_what_breaks_the_rules_is_a_sentence(tmp_path: Path, entries: Any) -> None:
    with pytest.raises(BadData, match=r"(Received|has|holds) .*"):
        read_pie_bench(written(tmp_path, entries))


def test_no_data_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds neither"):
        read_pie_bench(tmp_path)
    (tmp_path / "mapping_file.json").write_text("{")
    with pytest.raises(BadData, match="is not JSON"):
        read_pie_bench(tmp_path)


def test_masks_survive_the_way_to_runs_and_back() -> None:
    for density in (0.0, 0.2, 0.9, 1.0):
        mask = np.random.default_rng(0).random((512, 512)) < density
        assert (decoded(encoded(mask)) == mask).all()

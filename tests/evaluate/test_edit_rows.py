"""Rows of edits: what is written is read back, and means leave out what is not defined."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from promptweave.evaluate.edit_rows import EditRow, means, read_edit_rows, write_edit_rows

ROW = EditRow(
    "pie", "000", "change object", "replace", "ddim", "toybox", "a “cat”", "a dog", seed=3,
    settings={"cross": 0.4, "blend": True, "window": [0.1, 0.5]}, strength=0.4,
    figures={"psnr": 20.0, "ssim": math.nan}, images={"edit": "images/000.png"}, seconds=1.5,
)  # fmt: skip
OTHER = replace(ROW, pair="001", figures={"psnr": 30.0, "clip": 22.0}, images={}, seconds=math.nan, failure="No.")


def same(one: EditRow, two: EditRow) -> bool:
    return repr(one) == repr(two)  # NaN is equal to nothing


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_rows_come_back_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    """A figure that no judge gave stays absent, one that is not defined stays NaN."""
    path = write_edit_rows(tmp_path / f"deep/rows{suffix}", [ROW, OTHER])
    back = read_edit_rows(path)
    assert [same(*pair) for pair in zip(back, [ROW, OTHER], strict=True)] == [True, True]
    assert read_edit_rows(write_edit_rows(tmp_path / f"none{suffix}", [])) == []


def test_means_are_by_way_and_leave_out_what_is_not_defined() -> None:
    other_way = replace(ROW, settings={"cross": 0.8})
    first, second = means([ROW, OTHER, other_way])
    assert (first.pairs, first.failures, first.strength) == (2, 1, 0.4)
    assert first.figures["psnr"] == 25.0 and first.counts == {"psnr": 2, "ssim": 0, "clip": 1}
    assert math.isnan(first.figures["ssim"]) and first.figures["clip"] == 22.0 and first.seconds == 1.5
    assert (second.pairs, second.settings) == (1, "cross 0.8")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_files_that_hold_no_rows_are_a_sentence(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match="kept in .parquet or .jsonl"):
        write_edit_rows(tmp_path / "rows.csv", [ROW])
    path = tmp_path / f"rows{suffix}"
    with pytest.raises(FileNotFoundError, match="There is no file of rows"):
        read_edit_rows(path)
    path.write_text('{"half": ')
    with pytest.raises(ValueError, match="holds no rows of edits"):
        read_edit_rows(path)

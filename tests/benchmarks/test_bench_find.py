"""The benchmark of the strength finder."""

from __future__ import annotations

import json

import pytest

from promptweave.apps.cli import main
from promptweave.benchmarks.bench_find import BLENDED, COLUMNS, FIXED, FOUND, USUAL, Tried, bench_find, table_of
from promptweave.finding.search import EDITS
from promptweave.models.load import load_cached


def test_a_pair_is_edited_in_four_ways() -> None:
    """What is found costs more than an edit, and at most four; its settings are said."""
    rows = list(bench_find(load_cached("toybox-fast"), kinds=("background change",), count=1, steps=5))
    assert [row.how for row in rows] == [FIXED, USUAL, BLENDED, FOUND] and {row.number for row in rows} == {2}
    assert 1 < rows[-1].cost <= EDITS and rows[-1].settings and rows[0].cost == 1
    assert all(row.goal > 0 and row.kept > 0 for row in rows)


def test_the_table_has_means() -> None:
    rows = [
        Tried(0, "style change", FIXED, True, float("nan"), 0.5, 20.0, 1.0, ""),
        Tried(1, "style change", FIXED, False, float("nan"), 0.7, 24.0, 1.0, ""),
    ]
    assert table_of(rows) == [("style change", FIXED, "50%", "", "0.60", "22.0", "1.00", "2")]
    assert len(COLUMNS) == len(table_of(rows)[0])


def test_the_command(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", "find", "-m", "toybox-fast", "--steps", "5", "--count", "1", "--generated", "--json",
              "--kind", "style change", "--split", "test"])  # fmt: skip
    assert end.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["how"] for row in rows] == [FIXED, USUAL, FOUND] and rows[0]["goal"] == "nan"

"""Curves of rows: points, areas, plots and tables; and the commands that make them."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from promptweave.apps.cli import main
from promptweave.benchmarks.bench_curves import (
    area_cells,
    curves_of,
    kind_cells,
    points_table,
    together,
    traded,
    write_curves,
)
from promptweave.benchmarks.swept import METHODS, NO_CONTROL
from promptweave.evaluate.edit_rows import EditRow


def rows_of(method, figures, *, category="object swap", inversion="direct"):
    """Rows of pairs 0, 1 ... at each strength: strength -> (success, PSNR) of each pair."""
    for strength, pairs in figures.items():
        for pair, (success, kept) in enumerate(pairs):
            said = inversion.format(strength)
            yield EditRow(
                "world, drawn", f"test {pair}", category, method, said, "toybox", "a", "b", 0,
                METHODS[method].settings(strength), strength,
                {"success": float(success), "psnr_outside": float(kept), "ssim_outside": kept / 50,
                 "structure_oracle": 0.1}, seconds=1.0,
            )  # fmt: skip


@pytest.fixture
def curves():
    swept = {0.6: [(0, 30), (1, 28)], 0.0: [(1, 20), (1, 22)]}
    return curves_of(
        [
            *rows_of("InfEdit", swept, inversion="infedit:skip={}"),
            *rows_of(NO_CONTROL, {0.0: [(1, 18), (1, math.nan)]}),
            *rows_of("MasaCtrl", {0.08: [(0, 25), (0, 27)]}),
        ]
    )


def test_a_curve_has_a_point_for_each_strength_and_its_area(curves):
    assert [curve.method for curve in curves] == [NO_CONTROL, "MasaCtrl", "InfEdit"]  # the order of METHODS
    infedit = curves[2]
    assert [point.strength for point in infedit.points] == [0.0, 0.6] and infedit.usual == 0
    assert [point.pairs for point in infedit.points] == [2, 2]  # one point, though each strength is an inversion
    assert [point.figures["success"] for point in infedit.points] == [1, 0.5]
    assert infedit.areas["psnr_outside"].value == pytest.approx(0.5 * 29 + 0.5 * 21)
    assert infedit.areas["structure_oracle"].value == pytest.approx(0.9)
    assert infedit.of_kinds == {"object swap": pytest.approx(25)}
    assert curves[1].areas["psnr_outside"].value == 0  # it never succeeds
    assert traded(infedit).labels == ["0", "0.6"] and traded(infedit).across == [100, 50]
    assert traded(curves[0]).reference and not traded(infedit).reference


def test_tables_say_all_points_and_rank_by_area(curves):
    lines = area_cells(curves)
    assert [line[0] for line in lines] == ["InfEdit", "MasaCtrl"]  # no control has no curve
    assert lines[0][1] == "skip 0 to 0.6" and lines[0][2].startswith("25.0 +- ") and lines[0][5:] == ("100%", "2")
    columns, kinds = kind_cells(curves)
    assert columns == ("area in dB", "object swap") and ("InfEdit", "25.0") in kinds
    table = list(csv.DictReader(points_table(curves).splitlines()))
    assert [(line["method"], line["settings"]) for line in table][-1] == ("InfEdit", "skip 0.6")
    assert table[0]["psnr_outside"] == "18" and table[0]["ssim_goal"] == ""


def test_plots_are_vectors_and_pixels(curves, tmp_path):
    files = write_curves(curves, tmp_path)
    stem = "curves-toybox-drawn"
    assert {path.name for path in files} == {
        *(f"{stem}{part}.{kind}" for part in ("", "-each") for kind in ("svg", "pdf", "png")), f"{stem}.csv",
    }  # fmt: skip
    vector = (tmp_path / f"{stem}.svg").read_text()
    assert "<text" in vector and "InfEdit" in vector and "2 pairs a point" in vector
    assert (tmp_path / f"{stem}.pdf").read_bytes()[:4] == b"%PDF"
    pixels = np.asarray(Image.open(tmp_path / f"{stem}.png").convert("RGB"))
    assert pixels.shape[1] > 1000 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert "0.6" in (tmp_path / f"{stem}-each.svg").read_text()  # each point has its setting
    assert [name for name, _ in together(curves)] == ["toybox, drawn"]


def test_the_commands(tmp_path, capsys):
    run = ("--model", "toybox-fast", "--steps", "2", "--count", "1", "--split", "tuning", "-o", str(tmp_path))
    names = ("--method", "no control", "--method", "InfEdit")
    with pytest.raises(SystemExit) as end:
        main(["bench", "world", *run, *names])
    assert end.value.code == 0 and "goal" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["bench", "curves", *run, *names, "--json"])
    found = json.loads(capsys.readouterr().out)["curves"]
    assert [curve["method"] for curve in found] == ["no control", "InfEdit"]
    assert len(list(tmp_path.rglob("rows/*.jsonl"))) == 2  # the sweep went on where the world had begun
    assert len(list(tmp_path.glob("curves-toybox-fast-drawn*"))) == 7
    for wrong, said in (
        (("--method", "Magic"), "Methods that can be measured"),
        (("--kind", "pose"), "Kinds of edits are"),
        (("--source", "found"), "Sources are drawn and generated"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["bench", "world", *run, *wrong])
        assert end.value.code == 2 and said in " ".join(capsys.readouterr().err.split())

"""What the figures of `bench inversions` and `bench editors` are made of, for a moment on the embedded model."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from promptweave.apps.cli import main
from promptweave.benchmarks.bench_inversions import Row, bench_inversions, cells, read_rows
from promptweave.benchmarks.drawn_swaps import BOTH, editors_of
from promptweave.models.load import load


def test_a_moment(tmp_path, capsys):
    rows, again = tmp_path / "rows.jsonl", ("--rows", str(tmp_path / "rows.jsonl"), "--pictures", str(tmp_path))
    run = ("direct", "ddim", "dds", "--model", "toybox-fast", "--guidance", "3", "--steps", "2", "--count", "1", *again)
    with pytest.raises(SystemExit) as end:
        main(["bench", "inversions", *run])
    assert end.value.code == 0 and "PSNR" in capsys.readouterr().out
    found = read_rows(rows)
    both = [(i, e) for i in ("direct", "ddim") for e in BOTH]
    assert [(row.inversion, row.editor) for row in found] == [*both, ("dds", "alone")]
    direct, ddim = found[0], found[2]
    assert direct.source > 25 > ddim.source and all(0 < row.outside < 60 for row in found)
    sheet = np.asarray(Image.open(tmp_path / "inversions-0.webp"))
    assert sheet.shape[1] > sheet.shape[0] > 2 * 128
    assert {path.name for path in tmp_path.glob("*.webp")} == {
        "inversions-0.webp", "editors-direct.webp", "editors-ddim.webp", "editors-dds.webp"
    }  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(["bench", "inversions", "drect"])
    assert end.value.code == 2 and "Did you mean direct?" in capsys.readouterr().err


def test_several_editors_with_an_inversion(tmp_path, capsys):
    """Editors that act on rows share a run and are what they are alone; others have runs of their own."""
    model = load("toybox-fast", dtype="float32")
    run = {"count": 2, "steps": 2, "guidance": 2, "batch": 2}
    every = editors_of(model, ["Prompt-to-Prompt", "MasaCtrl", "pix2pix-zero"])
    found = list(bench_inversions(model, ["edit-friendly"], every, **run))
    assert [[row.editor for row in rows] for rows, _ in found] == [list(every)] * 2
    alone = list(bench_inversions(model, ["edit-friendly"], {"MasaCtrl": every["MasaCtrl"]}, **{**run, "batch": 1}))
    for (_, together), (_, single) in zip(found, alone, strict=True):
        difference = together.images[2 + list(every).index("MasaCtrl")].astype(int) - single.images[2]
        assert np.abs(difference).max() <= 2
    with pytest.raises(SystemExit) as end:
        main(["bench", "inversions", "direct", "--editors", "Consist", "--model", "toybox-fast"])
    said = " ".join(capsys.readouterr().err.split())
    assert end.value.code == 2 and "Plug-and-Play; pix2pix-zero; SEGA; or all. Received Consist." in said


def test_a_moment_of_editors(tmp_path, capsys):
    again = ("--rows", str(tmp_path / "rows.jsonl"), "--pictures", str(tmp_path))
    run = ("KV-Edit, mask", "--model", "toybox-dit", "--guidance", "1", "--steps", "2", "--count", "1", *again)
    with pytest.raises(SystemExit) as end:
        main(["bench", "editors", *run])
    assert end.value.code == 0 and "KV-Edit, mask" in capsys.readouterr().out
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert (row.inversion, row.editor, row.pair) == ("direct", "KV-Edit, mask", 0) and row.outside > 25
    assert np.asarray(Image.open(tmp_path / "editors.webp")).shape[1] > 2 * 128
    with pytest.raises(SystemExit) as end:
        main(["bench", "editors", "KV"])
    assert end.value.code == 2 and "Editors that can be measured: no control" in capsys.readouterr().err


def test_means_of_rows():
    one, two = (Row("direct", BOTH[1], n, n == 0, 20.0 + n, 30.0, 1.0 + n) for n in (0, 1))
    assert cells([one, two]) == [("direct", BOTH[1], "50%", "20.5", "30.0", "1.5", "2")]

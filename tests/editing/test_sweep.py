"""Sweeps and files of jobs: every cell and every job is the run that it would be alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from families import BUILDERS
from PIL import Image

import promptweave as pw
from promptweave.apps.commands_many import axes_of
from promptweave.apps.flags import Axis
from promptweave.apps.forms import byte_count, series
from promptweave.editing.drawn_sheet import DrawnSheet
from promptweave.editing.edit import run_many
from promptweave.editing.jobs import BadJobs, batches, read_jobs, run_jobs
from promptweave.editing.result import read_record
from promptweave.editing.sweep import usual_axes
from promptweave.models.base import ModelError

UNET = ("cross", "self_attention")
SOURCE, TARGET = "a photo of a cat riding a bike in the snow", "a photo of a dog riding a bike in the snow"
STEPS = 5


def close(a: pw.Result, b: pw.Result) -> None:
    torch.testing.assert_close(a.sample.latents, b.sample.latents, rtol=1e-3, atol=1e-3)
    assert np.abs(a.sample.pictures.astype(int) - b.sample.pictures).max() <= 1


def test_each_cell_is_the_edit_with_its_settings(tiny, tmp_path):
    made = pw.sweep(
        SOURCE, TARGET, rows=("self_attention", (0.0, 0.6)), columns=("cross", (0.0, 0.4, 1.0)), model=tiny,
        steps=STEPS, seed=3, blend=("cat", "dog"), threshold=0.8, batch=3,
    )  # fmt: skip
    assert made.pictures.shape[:2] == (2, 3)
    for share, row in zip((0.0, 0.6), made.cells, strict=True):
        for cross, cell in zip((0.0, 0.4, 1.0), row, strict=True):
            if cross == share == 0:
                assert [type(c).__name__ for c in cell.recipe.controls] == ["LocalBlend"]
                continue
            alone = pw.edit(
                SOURCE, TARGET, model=tiny, steps=STEPS, seed=3, blend=("cat", "dog"), threshold=0.8, cross=cross,
                self_attention=share,
            )  # fmt: skip
            assert alone.recipe == cell.recipe
            close(alone, cell)
    files = {path.name for path in made.save(tmp_path)}
    assert {"sweep.png", "sweep.json", "source.png", "self-attention-0.6-cross-0.4.png"} <= files and len(
        files
    ) == 6 + 3
    assert pw.replay(tmp_path / "self-attention-0.6-cross-1.png", model=tiny).difference <= 1
    with pytest.raises(FileExistsError, match="already holds a sweep"):
        made.save(tmp_path)
    with Image.open(tmp_path / "sweep.png") as image:
        width, height = image.size
    with pytest.raises(
        DrawnSheet, match=r"each image beside it has a recipe. Make it again: pw.sweep\('a photo.*0.4, 1"
    ):
        pw.replay(tmp_path / "sweep.png", model=tiny)
    assert width > 3 * 192 and height > 3 * 192  # a banner with the source, and two rows


def test_planning_walks_the_network_once_and_sees_what_is_switched_on(tiny, monkeypatch):
    """However many cells; a cache that the user switches on between two sweeps is refused by the second."""
    walked = list[str]()
    walk, defaults = type(tiny.network).modules, type(tiny).defaults.fget

    def modules(network):
        walked.append("modules")
        return walk(network)

    def read(model):
        walked.append("defaults")
        return defaults(model)

    def stop(*_, **__):
        raise StopIteration

    monkeypatch.setattr(type(tiny.network), "modules", modules)
    monkeypatch.setattr(type(tiny), "defaults", property(read))
    monkeypatch.setattr("promptweave.editing.sweep.record_run", stop)
    axes = {"rows": ("self_attention", (0.0, 0.5, 1.0)), "columns": ("cross", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))}
    with pytest.raises(StopIteration):
        pw.sweep(SOURCE, TARGET, model=tiny, steps=STEPS, **axes)
    assert walked.count("modules") <= 6 and walked.count("defaults") < 18
    monkeypatch.setattr(tiny.network, "_cache_config", type("PyramidAttentionBroadcastConfig", (), {})(), raising=False)
    with pytest.raises(ModelError, match="PyramidAttentionBroadcast"):
        pw.sweep(SOURCE, TARGET, model=tiny, steps=STEPS, **axes)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (("seed", (1, 2)), ("cross", (0.4, 0.8))),
        (("weight:snow", (-1.0, 1.0, 3.0)), ("threshold", (0.5, 0.9))),
        (("shared_start", (0.2, 0.6)), ("self_attention", (0.0, 0.4))),
    ],
)
def test_other_axes(tiny, rows, columns):
    made = pw.sweep(SOURCE, TARGET, rows=rows, columns=columns, model=tiny, steps=STEPS, blend=("cat", "dog"))
    assert made.pictures.shape[:2] == (len(rows[1]), len(columns[1]))
    assert made.cells[0][0].recipe.seed == (1 if rows[0] == "seed" else 0)
    different = {cell.sample.latents[1].sum().item() for row in made.cells for cell in row}
    assert len(different) > 2
    assert made.sheet().size[0] > 300


def test_axes_that_are_none(tiny):
    for name in ("images", "blend", "stepz"):
        with pytest.raises(ValueError, match=f"one of cross, .*guidance or weight:word. Received '{name}'"):
            pw.sweep(SOURCE, TARGET, rows=(name, (1, 2)), model=tiny)
    with pytest.raises(ValueError, match="must differ"):
        pw.sweep(SOURCE, TARGET, rows=("cross", (1, 2)), columns=("cross", (1, 2)), model=tiny)
    with pytest.raises(ValueError, match="each once"):
        pw.sweep(SOURCE, TARGET, rows=("threshold", (0.5, 0.5)), model=tiny)


def test_numbers_of_an_axis():
    assert series("0,0.2,...,1", "--cross") == pytest.approx((0, 0.2, 0.4, 0.6, 0.8, 1.0))
    assert series("-2, 4", "--weight") == (-2, 4)
    for text in ("0,...,1", "0,0.3,...,1", "0,0.2,...", "1,0.5,...,2", "0,x"):
        with pytest.raises(ValueError, match="--cross"):
            series(text, "--cross")
    assert [byte_count(text) for text in ("100", "2k", "1.5M", "2G")] == [100, 2000, 1_500_000, 2_000_000_000]
    options = {"cross": Axis((0, 1)), "threshold": 0.5}
    rows, columns, fixed = axes_of({**options, "weights": {"snow": 2.0}}, UNET)
    assert (rows[0], columns[0], fixed) == ("self_attention", "cross", {"threshold": 0.5, "weights": {"snow": 2.0}})
    with pytest.raises(ValueError, match="two axes"):
        axes_of({**options, "threshold": Axis((0.1, 0.2)), "weights": {"snow": Axis((1, 2))}}, UNET)


JOBS = [
    {"source": SOURCE, "targets": [TARGET], "seed": 1, "steps": 4},
    {"name": "weights", "source": SOURCE, "weights": {"snow": 2}, "steps": 6, "guidance": 1.0},
    {"source": SOURCE, "targets": TARGET, "blend": ["cat", "dog"], "cross": [0.1, 0.9], "images": 2, "steps": 4},
    {"source": "a lion", "targets": ["a cat", "a dog"], "size": [24, 40], "steps": 3},
]


def test_jobs_in_shared_passes_are_the_jobs_alone(tiny, tmp_path, monkeypatch):
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, JOBS)) + "\n\n")
    jobs = read_jobs(path, tiny)
    calls: list[int] = []
    original = type(tiny).predict
    monkeypatch.setattr(
        type(tiny), "predict", lambda self, z, *a, **k: calls.append(len(z)) or original(self, z, *a, **k)
    )
    together = run_many([job.recipe for job in jobs], tiny)
    assert max(calls) == 4 + 2 + 8  # the first three have one size; the fourth has another
    monkeypatch.undo()
    for job, result in zip(jobs, together, strict=True):
        close(result, pw.run(job.recipe, tiny))
    assert [len(batch) for batch in batches(jobs, 4)] == [2, 1, 1]

    done: list[tuple[str, bool]] = []
    run_jobs(jobs[:2], tiny, tmp_path / "out", done=lambda job, result: done.append((job.name, result is None)))
    run_jobs(jobs, tiny, tmp_path / "out", rows=4, done=lambda job, result: done.append((job.name, result is None)))
    assert [entry for entry in done[2:4]] == [("0001", True), ("weights", True)]
    assert done[4:] == [("0003", False), ("0004", False)]
    assert read_record(tmp_path / "out" / "0003" / "edit.json")["recipe"]["images"] == 2
    assert (tmp_path / "out" / "0004" / "edit-2.png").exists()

    path.write_text(json.dumps({**JOBS[0], "seed": 9}))
    with pytest.raises(FileExistsError):  # the folder holds a run of another recipe
        run_jobs(read_jobs(path, tiny), tiny, tmp_path / "out")


def test_every_wrong_line_is_named_before_anything_runs(tiny, tmp_path):
    path = tmp_path / "jobs.jsonl"
    wrong = [
        "{", '{"targets": ["a cat"]}', json.dumps({**JOBS[0], "stepz": 3}), json.dumps({**JOBS[0], "blend": "horse"}),
        json.dumps({**JOBS[0], "name": "a/b"}), json.dumps({**JOBS[0], "name": "twice"}),
        json.dumps({**JOBS[0], "name": "twice"}), json.dumps({**JOBS[0], "steps": 0}),
    ]  # fmt: skip
    path.write_text("\n".join(wrong))
    with pytest.raises(BadJobs) as caught:
        run_jobs(read_jobs(path, tiny), tiny, tmp_path / "out")
    text = str(caught.value)
    for number in (1, 2, 3, 4, 5, 7, 8):
        assert f"line {number}:" in text
    assert "line 6:" not in text and "stepz" in text
    assert not (tmp_path / "out").exists()
    path.write_text("\n")
    with pytest.raises(BadJobs, match="holds no jobs"):
        read_jobs(path, tiny)


def test_the_usual_axes_are_those_of_the_models_attention(tiny, tokenizer):
    assert usual_axes(tiny) == ("cross", "self_attention")
    model = pw.load(BUILDERS["Stable Diffusion 3"](tokenizer))
    made = pw.sweep(SOURCE, TARGET, columns=("seed", (0,)), model=model, steps=STEPS, guidance=3.0)
    assert made.rows == ("joint", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)) and made.pictures.shape[:2] == (6, 1)
    assert usual_axes(model) == ("shared_start", "joint")


def test_values_and_words_that_make_bad_names_lose_no_cell(tiny, tmp_path):
    source, target = "a photo of a ../cat riding a bike", "a photo of a ../dog riding a bike"
    made = pw.sweep(
        source, target, rows=("weight:../dog", (1.0, 2.0, 2.0000001)), columns=("cross", (0.5,)), model=tiny, steps=2
    )
    files = {path.name for path in made.save(tmp_path / "out")}
    assert files == {path.name for path in (tmp_path / "out").iterdir()} and len(files) == 3 + 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {"dog-2.0-cross-0.5.png", "dog-2.0000001-cross-0.5.png"} <= files

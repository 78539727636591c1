"""The commands `bench pie` and `report`, from a drawn miniature to the page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from promptweave.apps.cli import main
from promptweave.benchmarks.drawn_data import write_drawn_pie_bench
from promptweave.evaluate.data_sets import read_data
from promptweave.evaluate.edit_rows import read_edit_rows


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def test_from_a_table_to_the_page(run: Any, tiny_folder: Path, tmp_path: Path) -> None:
    """Figures, JSON, resumption and the page, by the command line alone."""
    (tmp_path / "edits.csv").write_text("source,target,image\na black cat,a black dog,cat.png\n")
    Image.new("RGB", (32, 32), (200, 40, 90)).save(tmp_path / "cat.png")
    asked = (
        "bench", "pie", "--data", "edits.csv", "--editors", "none,replace:self-attention=0.5", "--inversions", "direct",
        "--grid", "cross=0.2,0.8", "--model", str(tiny_folder), "--steps", "2", "-o", "run",
    )  # fmt: skip
    code, out, err = run(*asked)
    assert code == 0, err
    assert "PSNR outside" in " ".join(out.split()) and "CLIP needs openai" in out
    assert "published" not in out and "promptweave report run" in out
    rows = read_edit_rows(tmp_path / "run/rows.parquet")
    assert [(row.method, row.strength, row.seed) for row in rows] == [
        ("none", None, 1234), ("replace", 0.2, 1234), ("replace", 0.8, 1234),
    ]  # fmt: skip
    code, out, err = run(*asked, "--json")
    found = json.loads(out)
    assert len(found["missing"]) == 3 and [one["pairs"] for one in found["means"]] == [1, 1, 1]
    assert found["means"][2]["settings"] == "self_attention 0.5, cross 0.8"
    assert run("report", "run", "--shown", "1")[0] == 0 and (tmp_path / "run/report.html").stat().st_size > 10_000
    assert run("report", "edits.csv")[0] == 2


def test_what_is_asked_wrongly_is_said_before_a_model_is_loaded(run: Any) -> None:
    for arguments, said in (
        ((), "--data DIR, or --drawn PAIRS"), (("--data", "x", "--drawn", "2"), "--data DIR, or --drawn"),
        (("--drawn", "2", "--editors", "p2q"), "no editor 'p2q'"),
        (("--drawn", "2", "--grid", "cross"), "OPTION=VALUE"), (("--data", "none"), "no data set none"),
        (("--drawn", "2", "--inversions", "directt"), "no inversion 'directt'"),
    ):  # fmt: skip
        code, _, err = run("bench", "pie", "--model", "not/there", *arguments)
        assert code != 0 and said in err, (arguments, err)


def test_what_a_reader_made_up_is_said(run: Any, tiny_folder: Path, tmp_path: Path) -> None:
    """TEdBench has no source prompts."""
    (tmp_path / "originals").mkdir()
    Image.new("RGB", (32, 32), (200, 40, 90)).save(tmp_path / "originals/cat.png")
    (tmp_path / "input_list.json").write_text('[{"img_name": "cat.png", "target_text": "a photo of a dog"}]')
    code, out, err = run(
        "bench", "pie", "--data", ".", "--editors", "none", "--model", str(tiny_folder), "--steps", "1", "-o", "run"
    )
    assert code == 0 and "is the name of the file: the data set has none. (1 pairs)" in " ".join(out.split()), err


def test_the_miniature_is_pie_bench(tmp_path: Path) -> None:
    folder = write_drawn_pie_bench(tmp_path / "data", 7)
    name, pairs = read_data(folder)
    assert name == "pie" and len({pair.category for pair in pairs}) == 6
    swap = next(pair for pair in pairs if pair.category == "change object")
    assert swap.words[0][0] in swap.source and swap.words[1][0] in swap.target and swap.framed
    assert swap.mask is not None and 0.01 < swap.mask().mean() < 0.9
    assert all(pair.image and pair.image.is_file() and pair.goal and pair.goal.is_file() for pair in pairs)
    with pytest.raises(FileExistsError, match="exists"):
        write_drawn_pie_bench(folder, 7)


def test_workers_on_ray_share_the_folder(tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray is asked for, with a stand-in that runs the workers here, one after the other."""
    asked: dict[str, Any] = {}

    class Items(list[Any]):
        def map_batches(self, kind: Any, **how: Any) -> Items:
            asked.update(how)
            return Items(kind()({"item": [item]}) for item in self)

        def iter_rows(self) -> list[Any]:
            return [{name: values[0] for name, values in row.items()} for row in reversed(self)]

    ray, data = ModuleType("ray"), ModuleType("ray.data")
    data.from_items = lambda items, override_num_blocks: Items(items)  # type: ignore[attr-defined]
    data.DataContext = SimpleNamespace(get_current=SimpleNamespace)  # type: ignore[attr-defined]
    ray.data, ray.is_initialized, ray.init = data, lambda: False, lambda **_: None  # type: ignore[attr-defined]
    ray.cluster_resources = lambda: {"CPU": 2.0}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", data)
    from promptweave.benchmarks.field_ray import benchmark_on_ray
    from promptweave.editing.settings import Settings

    (tmp_path / "p.txt").write_text("a black cat\na lion wearing a crown\n")
    calls: list[int] = []
    found = benchmark_on_ray(
        tmp_path / "p.txt", lambda: tiny, workers=2, output=tmp_path / "out", editors=("none",),
        progress=lambda row, count: calls.append(count),
        settings=Settings(steps=1, guidance=2.0),
    )  # fmt: skip
    assert asked == {"batch_size": 1, "concurrency": 2, "num_gpus": 0}
    assert (found.benchmark, len(found.missing), calls) == ("prompts", 3, [2, 2])
    assert [row.source for row in found.rows] == ["a black cat", "a lion wearing a crown"]
    assert (tmp_path / "out/rows.parquet").is_file()

"""Benchmarks on data sets: all ways are run once, whatever kills the process, and figures are those of the images."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from promptweave.benchmarks.field_editors import Way, call_of, read_grid, read_ways
from promptweave.benchmarks.field_run import benchmark
from promptweave.editing.settings import Settings
from promptweave.editing.who_reads import Unread
from promptweave.evaluate.data_sets import read_data
from promptweave.evaluate.edit_pairs import BadData, EditPair
from promptweave.evaluate.edit_rows import EditRow, plain_row, read_edit_rows
from promptweave.evaluate.metrics import psnr
from promptweave.evaluate.pie_bench import IMAGES, encoded, framed
from promptweave.evaluate.published_metrics import published
from promptweave.models.judge_networks import SQUEEZENET, Lpips

SETTINGS = Settings(steps=2, guidance=2.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PIE-Bench with two pairs of 32 x 32 pixels."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / IMAGES / "1_change_object_80").mkdir(parents=True)
    mask = np.zeros((512, 512), bool)
    mask[96:352, 128:400] = True
    entries: dict[str, Any] = {}
    for name, new, runs in (("000", "dog", encoded(mask)), ("001", "lion", [0, 90000])):
        path = f"1_change_object_80/{name}.png"
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / IMAGES / path)
        entries[name] = {
            "image_path": path, "original_prompt": "a photo of a [cat] riding a bike", "editing_type_id": "1",
            "editing_prompt": f"a photo of a [{new}] riding a bike", "blended_word": f"cat {new}", "mask": runs,
        }  # fmt: skip
    (folder / "mapping_file.json").write_text(json.dumps(entries))
    return folder


def run(data: Any, tiny: Any, output: Path, **more: Any) -> Any:
    made: dict[str, Any] = {"editors": ("none", "replace"), "inversions": ("direct",), "settings": SETTINGS, **more}
    return benchmark(data, model=tiny, output=output, **made)


def figures(rows: list[EditRow]) -> list[Any]:
    return [{k: v for k, v in plain_row(row).items() if k != "seconds"} for row in rows]


def test_all_ways_are_run_and_judged(data: Path, tiny: Any, tmp_path: Path) -> None:
    """Each pair with each editor, inversion and value; the figures are those of the images that were written."""
    calls: list[EditRow | None] = []
    found = run(
        data, tiny, tmp_path / "out", grid={"cross": [0.2, 0.8]}, progress=lambda row, count: calls.append(row),
        editors=("p2p:threshold=0.9", "inpaint:mask=pair"),
    )  # fmt: skip
    ways = [(row.pair, row.inversion, row.method, row.strength) for row in found.rows]
    each = [("direct", "p2p", 0.2), ("direct", "p2p", 0.8), ("", "inpaint", None)]
    assert ways == [(pair, *way) for pair in ("000", "001") for way in each] and len(calls) == 6
    assert not [row.failure for row in found.rows if row.failure] and found.benchmark == "pie"
    row = found.rows[0]
    source, made = (np.asarray(Image.open(tmp_path / "out" / row.images[name])) for name in ("source", "edit"))
    mask = np.asarray(Image.fromarray(read_data(data)[1][0].mask()).resize((32, 32)))  # type: ignore[misc]
    assert (source == np.asarray(Image.open(data / IMAGES / "1_change_object_80/000.png"))).all()
    assert row.figures["psnr"] == pytest.approx(published(source, made, ~framed(mask))["psnr"])
    assert row.figures["psnr_outside"] == pytest.approx(psnr(source, made, ~mask)) and row.figures["psnr"] < 60
    assert row.settings == {"threshold": 0.9, "cross": 0.2} and row.seconds > 0 and row.figures["psnr_inversion"] > 0
    assert len(found.missing) == 3 and "clip_whole" not in row.figures
    assert figures(read_edit_rows(tmp_path / "out/rows.parquet")) == figures(found.rows)
    lines = list(csv.DictReader((tmp_path / "out/summary.csv").read_text().splitlines()))
    assert [line["strength"] for line in lines] == ["0.2", "0.8", ""]
    assert float(lines[1]["psnr"]) == pytest.approx(np.mean([found.rows[i].figures["psnr"] for i in (1, 4)]))
    again = run(data, tiny, tmp_path / "alone", editors=("p2p:threshold=0.9",), grid={"cross": [0.8]}, limit=1)
    assert again.rows[0].figures == found.rows[1].figures, "an edit does not depend on what is run beside it"


def child(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; its status: 0, or minus the signal that killed it."""
    number = os.fork()
    if not number:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a child never returns
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def test_a_run_that_is_killed_anywhere_goes_on(data: Path, tiny: Any, tmp_path: Path) -> None:
    """Killed before every single move of a file: what was done stays untouched, nothing is missing in the end."""
    folder, one = tmp_path / "killed", {"limit": 1, "editors": ("none",)}
    whole = run(data, tiny, tmp_path / "whole", **one)

    def killed() -> None:
        replace, left = os.replace, [1 + kills % 4]

        def once(*given: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*given)

        os.replace = once
        run(data, tiny, folder, **one)

    done: dict[Path, int] = {}
    kills, status = 0, 1
    while status:
        status = child(killed)
        now = {path: path.stat().st_mtime_ns for path in folder.glob("edits/*/*.json")}
        assert {path: now.get(path) for path in done} == done, "an edit that was done was made again"
        done = now
        kills += status == -signal.SIGKILL
        assert kills < 40 and status in (0, -signal.SIGKILL)
    assert kills > 3 and len(done) == 1
    assert figures(run(data, tiny, folder, **one).rows) == figures(whole.rows)
    assert not list(folder.rglob(".promptweave-*")), "what killed processes left is gone"


def test_processes_share_a_folder(data: Path, tiny: Any, tmp_path: Path) -> None:
    """Two at once: each edit is made once, and both gather all."""
    children: list[int] = []
    for name in "ab":
        number = os.fork()
        if not number:
            made: list[str] = []

            def note(row: EditRow | None, count: int, made: list[str] = made) -> None:
                made += [] if row is None else [f"{row.pair} {row.inversion} {row.method}"]

            try:
                both = ("direct", "ddim")
                found = run(data, tiny, tmp_path / "out", editors=("none",), inversions=both, progress=note)
                (tmp_path / name).write_text("\n".join([str(len(found.rows)), *made]))
            finally:
                os._exit(0)
        children.append(number)
    for number in children:
        os.waitpid(number, 0)
    one, two = ((tmp_path / name).read_text().splitlines() for name in "ab")
    assert one[0] == two[0] == "4" and len({*one[1:], *two[1:]}) == len(one[1:] + two[1:]) == 4


def test_a_judge_that_comes_later_judges_what_is_there(data: Path, tiny: Any, tmp_path: Path) -> None:
    """The images of the first run are judged; no edit is made again."""
    one: dict[str, Any] = {"editors": ("none",), "limit": 1}
    first = run(data, tiny, tmp_path / "out", **one)
    assert "lpips" not in first.rows[0].figures and any(SQUEEZENET in said for said in first.missing)
    torch.manual_seed(0)
    weights = {f"features.{name}": value for name, value in Lpips().features.state_dict().items()}
    (tmp_path / "judges").mkdir()
    torch.save(weights, tmp_path / "judges" / SQUEEZENET)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    later = run(data, tiny, tmp_path / "out", judges=tmp_path / "judges", **one)
    assert all(row.figures["lpips"] > 0 for row in later.rows) and len(later.missing) == 2
    assert {path: path.stat().st_mtime_ns for path in times} == times
    kept = [{k: v for k, v in row.figures.items() if "lpips" not in k} for row in later.rows]
    assert kept == [row.figures for row in first.rows]
    assert all(row is None for row in asked(data, tiny, tmp_path / "out", judges=tmp_path / "judges", **one))
    with pytest.raises(FileNotFoundError, match="no folder of judges"):
        run(data, tiny, tmp_path / "out", judges=tmp_path / "none")


def asked(*given: Any, **more: Any) -> list[EditRow | None]:
    calls: list[EditRow | None] = []
    run(*given, progress=lambda row, count: calls.append(row), **more)
    return calls


def test_an_edit_that_fails_is_a_row_and_can_be_tried_again(data: Path, tiny: Any, tmp_path: Path) -> None:
    """Here the second image is missing at first."""
    pairs = read_data(data)[1]
    there = pairs[1].image
    gone = EditPair(**{**vars(pairs[1]), "image": tmp_path / "late.png"})
    found = run([pairs[0], gone], tiny, tmp_path / "out", editors=("none",))
    assert [bool(row.failure) for row in found.rows] == [False, True]
    assert "late.png" in found.rows[1].failure and math.isnan(found.rows[1].seconds)
    assert found.means[0].failures == 1 and found.means[0].counts["psnr"] == 1
    assert there is not None
    (tmp_path / "late.png").write_bytes(there.read_bytes())
    assert all(row is None for row in asked([pairs[0], gone], tiny, tmp_path / "out", editors=("none",)))
    again = run([pairs[0], gone], tiny, tmp_path / "out", retry=True, editors=("none",))
    assert not any(row.failure for row in again.rows)


def test_masks_go_the_way_of_their_image(tiny: Any, tmp_path: Path) -> None:
    """A wide image is cropped to its middle, and so are its mask and its goal."""
    rng = np.random.default_rng(1)
    wide, goal = rng.integers(0, 256, (2, 64, 128, 3), np.uint8)
    mask = np.zeros((64, 128), np.uint8)
    mask[:, :64] = 255
    for name, pixels in (("image", wide), ("mask", mask), ("goal", goal)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "edits.csv").write_text(
        "source,target,image,mask,goal\na black cat,a black dog,image.png,mask.png,goal.png\n"
    )
    found = run(tmp_path, tiny, tmp_path / "out", editors=("none", "inpaint:mask=pair"))
    row = found.rows[0]
    source, made = (np.asarray(Image.open(tmp_path / "out" / row.images[name])) for name in ("source", "edit"))
    inside = np.zeros((32, 32), bool)
    inside[:, :16] = True
    assert found.benchmark == "table" and row.figures["psnr_outside"] == pytest.approx(psnr(source, made, ~inside))
    half = np.asarray(Image.fromarray(goal).resize((32, 32), Image.Resampling.LANCZOS, box=(32, 0, 96, 64)))
    assert row.figures["psnr_goal_inside"] == pytest.approx(psnr(half, made, inside))
    assert found.rows[1].inversion == "" and found.rows[1].figures["psnr_outside"] > row.figures["psnr_outside"]


def test_prompts_alone_are_generated(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "color_val.txt").write_text("a black cat next to a red car\na lion wearing a crown\n")
    found = run(tmp_path / "color_val.txt", tiny, tmp_path / "out", editors=("none", "pag"), inversions=())
    assert [(row.method, row.target, set(row.images)) for row in found.rows[:2]] == [
        ("none", "", {"edit"}), ("pag", "", {"edit"}),
    ]  # fmt: skip
    pictures = [np.asarray(Image.open(tmp_path / "out" / row.images["edit"])) for row in found.rows]
    assert not np.array_equal(pictures[0], pictures[1])
    with pytest.raises(ValueError, match="p2p edits pairs, and the data has prompts alone"):
        run(tmp_path / "color_val.txt", tiny, tmp_path / "other", editors=("p2p",))


def test_what_cannot_be_run_is_said_before_anything_runs(data: Path, tiny: Any, tmp_path: Path) -> None:
    """One sentence each, and no folder is left."""
    folder, pairs = tmp_path / "out", read_data(data)[1]
    for more, kind, said in (
        ({"editors": ("masa",)}, ValueError, "no editor 'masa'. Did you mean masactrl"),
        ({"editors": ()}, ValueError, "at least one editor"),
        ({"editors": ("replace:crss=1",)}, ValueError, "Did you mean cross"),
        ({"editors": ("replace:cross=2",)}, ValueError, "replace: cross"),
        ({"grid": {"omga": [1]}}, ValueError, "has the option 'omga'"),
        ({"inversions": ("dim",)}, ValueError, "no inversion 'dim'"),
        ({"editors": ("pag",)}, ValueError, "pag takes one prompt"),
        ({"editors": ("flow",)}, ValueError, "flow can edit none of the first 2 pairs"),
        ({"editors": ("replace:joint=0.5",)}, Unread, "joint"),
        ({"limit": 0}, ValueError, "at least 1"), ({"kinds": ("pose",)}, BadData, "kinds of PIE-Bench"),
    ):  # fmt: skip
        with pytest.raises(kind, match=said):
            run(data, tiny, folder, **more)
    assert not folder.exists()
    with pytest.raises(BadData, match="unique"):
        run([pairs[0], pairs[0]], tiny, folder)
    run(data, tiny, folder, limit=1, editors=("none",))
    with pytest.raises(FileExistsError, match="holds a run with steps 2, and this one has 3"):
        run(data, tiny, folder, settings=Settings(steps=3, guidance=2.0))
    other = EditPair(**{**vars(pairs[0]), "target": "a photo of a lion"})
    with pytest.raises(FileExistsError, match="a run with benchmark"):
        run([other], tiny, folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match="holds other files"):
        run(data, tiny, tmp_path / "full")


def test_the_published_way_and_what_pairs_know(data: Path, tiny: Any) -> None:
    pair = read_data(data)[1][0]
    (way,) = read_ways(["p2p"])
    assert call_of(way, pair, tiny).options == {
        "kind": "refine", "cross": 0.4, "self_attention": 0.6, "blend": ("cat", "dog"), "weights": {"dog": 2.0},
    }  # fmt: skip
    wordless = EditPair(**{**vars(pair), "words": ((), ()), "mask": None})
    assert "blend" not in call_of(way, wordless, tiny).options
    (way,) = read_ways(["refine:blend=pair,mask=pair,self_attention=0.2:0.5"])
    assert call_of(way, pair, tiny).options["blend"] == ("cat", "dog") and way.options["self_attention"] == (0.2, 0.5)
    (alone,) = read_ways(["kvedit:blend=pair"])
    assert call_of(alone, pair, tiny).options == {"kind": "kvedit", "blend": ("cat",)}, "the source has no dog"
    with pytest.raises(ValueError, match="has no mask, which mask=pair"):
        call_of(way, wordless, tiny)


def test_a_grid_makes_ways_of_the_editors_that_read_it() -> None:
    ways = read_ways(["none", "refine:cross=0.5", "pnp"], read_grid(["self-attention=0.1,0.9", "steps=4"]))
    assert ways == [
        Way("none", {}, {"steps": 4}),
        Way("refine", {"cross": 0.5, "self_attention": 0.1}, {"steps": 4}, 0.1),
        Way("refine", {"cross": 0.5, "self_attention": 0.9}, {"steps": 4}, 0.9),
        Way("pnp", {}, {"steps": 4}),
    ]
    for editors, axes in (
        (["refine"], ["self-attention=0.1", "self_attention=0.2"]),
        (["refine:cross=1"], ["cross=0.2"]),
    ):
        with pytest.raises(ValueError, match="of refine is given twice"):
            read_ways(editors, read_grid(axes))
    for text in ("cross", "cross=", "cross=1,,2"):
        with pytest.raises(ValueError, match="OPTION=VALUE,VALUE"):
            read_grid([text])

"""Every command: what it prints, writes and returns; and what it says of bad input."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from promptweave.apps.cli import main

SOURCE = "a photo of a cat riding a bike"
SWAP = "a photo of a dog riding a bike"


@pytest.fixture()
def run(tiny_folder, tmp_path, monkeypatch, capsys):
    """Run the command line in an empty folder with the tiny model: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str, model: bool = True):
        code = 0
        try:
            main([*arguments, *(["--model", str(tiny_folder)] if model else [])])
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


def width_and_height(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def files(folder: Path = Path(".")) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_edit_and_replay(run):
    code, out, _ = run(
        "edit", SOURCE, SWAP, "--steps", "3", "--compare", "-o", "run", "--blend", "dog", "--cross", "0.7"
    )
    assert code == 0 and files(Path("run")) == {"source.png", "edit.png", "comparison.png", "edit.json"}
    assert "swapped" in out and "PSNR" in out and "LocalBlend" in out and "wrote run/edit.png" in out
    for named in (False, True):  # the model of the recipe, and one given in its place
        code, out, _ = run("replay", "run/edit.png", model=named)
        assert code == 0 and "The pixels match." in out
    with Image.open("run/edit.png") as image:
        picture, text = np.array(image), image.info["promptweave"]
    picture[0, 0] ^= 64
    info = PngInfo()
    info.add_itxt("promptweave", text)
    Image.fromarray(picture).save("touched.png", pnginfo=info)
    code, out, _ = run("replay", "touched.png", "--json", model=False)
    wrong = {"matches": False, "largest_difference": 64, "share": 3 / picture.size, "notes": []}
    assert code == 1 and json.loads(out) == wrong


def test_every_option_reaches_the_recipe(run):
    Image.new("L", (32, 16), 255).save("mask.png")
    code, out, err = run(
        "edit", SOURCE, SWAP, "a dog", "--kind", "refine", "--weight", "dog=2", "--blend", "dog", "--subtract", "photo",
        "--mask", "mask.png", "--threshold", "0.4", "--cross", "0.8", "--cross", "dog=0.2:0.6",
        "--self-attention", "0.1:0.5", "--self-grid", "64", "--seed", "4", "--images", "2", "--steps", "4",
        "--guidance", "5", "--size", "16x32",
        "--negative", "snow", "--reference-compat",
        "--combine", "union", "--blend-start", "0.3", "--shared-start", "0.25", "--json", "-o", "all",
    )  # fmt: skip
    assert code == 0, err
    recipe = json.loads(out)["recipe"]
    assert (recipe["seed"], recipe["images"], recipe["steps"], recipe["guidance"]) == (4, 2, 4, 5.0)
    assert (recipe["size"], recipe["negative"]) == ([16, 32], "snow")
    refine, weight, shared, blend = recipe["controls"]
    assert (shared["control"], shared["share"], shared["targets"]) == ("SharedStart", 0.25, None)
    assert (blend["combine"], blend["start"]) == ("union", 0.3)
    assert refine["control"] == "Refine" and refine["cross"] == {"default": 0.8, "dog": [0.2, 0.6]}
    assert (refine["self_attention"], refine["self_grid"], refine["reference_compat"]) == ([0.1, 0.5], 64, True)
    assert weight["weights"] == {"dog": 2.0}
    assert (blend["words"], blend["subtract"], blend["threshold"]) == (["dog"], ["photo"], 0.4)
    assert np.array(blend["mask"]).shape == (16, 32)
    assert width_and_height("all/edit-2-seed-5.png") == (32, 16)


def test_generate(run):
    code, out, _ = run("generate", "a red car", "--steps", "2", "--quiet")
    assert code == 0 and not out and files() == {"out/generate/image.png"}
    assert run("generate", "a red car", "--steps", "2")[0] == 0  # beside it, for no folder was named
    assert files() == {"out/generate/image.png", "out/generate-2/image.png"}
    code, _, err = run("generate", "a red car", "--steps", "2", "-o", "out/generate")
    assert code == 2 and "--force" in err
    assert run("generate", "a red car", "--steps", "1", "--force", "--images", "2")[0] == 0
    assert files(Path("out/generate")) == {"image.png", "image-seed-1.png", "comparison.png"}


def test_words(run):
    code, out, _ = run("words", SOURCE, "a photo of a dog riding a red bike")
    assert code == 0 and "prompt 1 -> prompt 2: refine" in out
    assert "added" in out and "None" not in out
    code, out, _ = run("words", SOURCE, SWAP, "--json")
    made = json.loads(out)
    assert made["alignments"][0]["edit"] == "replace"
    assert [w["text"] for w in made["prompts"][0]["words"]] == SOURCE.split()


def test_sites(run):
    code, out, _ = run("sites", "--json", "--size", "32x16")
    made = json.loads(out)
    assert code == 0 and len(made) == 14 and made[0]["maps"] == "[4, 128, 128]" and made[0]["place"] == "down"
    assert [site["is_cross"] for site in made] == ["False", "True"] * 7
    assert "down_cross_0_res_16" in run("sites")[1]


def test_maps(run):
    code, out, _ = run("maps", "a cat on a bike", "--steps", "2", "-o", "m/maps.png")
    assert code == 0 and width_and_height("m/maps.png")[0] > 1000
    code, _, err = run("maps", "a cat on a bike", "--steps", "2", "-o", "m/maps.png")
    assert code == 2 and "--force" in err
    _, out, _ = run(
        "maps", "a cat on a bike", "--steps", "2", "-o", "m/maps.png", "--force", "--json", "--special", "--alone"
    )
    assert json.loads(out)["words"] == ["<start>", "a", "cat", "on", "a#2", "bike", "<end>"]


def test_doctor(run, tiny_folder):
    code, out, _ = run("doctor", "--json")
    made = json.loads(out)
    assert code == 0 and made["download"] == "nothing" and made["model"] == str(tiny_folder)
    assert any(name.endswith(".safetensors") for name in made["files"])
    code, out, _ = run("doctor", "--json", "--model", "toybox-fast", model=False)
    made, base = json.loads(out), json.loads(run("doctor", "--json", "--model", "toybox", model=False)[1])
    assert made["weights"] != base["weights"] and "pytorch_lora_weights.safetensors" in made["files"]
    code, out, _ = run("doctor", "--json", "--model", "owner/name", model=False)
    assert json.loads(out)["download"].startswith("owner/name")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["edit", SOURCE, SWAP, "--blend", "hors"], "horse|'hors'"),
        (["edit", SOURCE, "--weight", "bikes=2"], "bike"),
        (["edit", SOURCE, "--weight", "bike"], "word=factor"),
        (["edit", SOURCE, "--weight", "bike=much"], "number"),
        (["edit", "", SWAP], "empty"),
        (["edit", SOURCE], "target prompt, or weights"),
        (["edit", SOURCE, SWAP, "--kind", "replace", "--kind", "refine"], "--kind takes one value"),
        (["edit", SOURCE, "a " * 80 + "dog"], "Shorten it"),
        (["edit", SOURCE, SWAP, "--steps", "0"], "steps"),
        (["edit", SOURCE, SWAP, "--steps", "-5"], "steps"),
        (["edit", SOURCE, SWAP, "--cross", "1.5"], "0 <= start <= end <= 1"),
        (["edit", SOURCE, SWAP, "--seed", "-1"], "--seed takes a number of at least 0"),
        (["edit", SOURCE, SWAP, "--seed", "1.5"], "--seed takes a whole number"),
        (["edit", SOURCE, SWAP, "--kind", "bogus"], "--kind is one of auto, replace"),
        (["edit", SOURCE, SWAP, "--seed"], "--seed requires an argument"),
        (["edit", SOURCE, SWAP, "--self-attention", "0.6:0.2"], "0 <= start <= end <= 1"),
        (["edit", SOURCE, SWAP, "--guidance", "nan"], "finite"),
        (["edit", SOURCE, SWAP, "--size", "33"], "multiples of 2"),
        (["edit", SOURCE, SWAP, "--size", "big"], "--size takes pixels"),
        (["edit", SOURCE, SWAP, "--mask", "nothing.png"], "--mask: there is no image at nothing.png"),
        (["edit", SOURCE, SWAP, "-o", "/proc/run"], "cannot be written"),
        (["edit", SOURCE, SWAP, "--device", "cuda:9"], "cannot be used"),
        (["edit", SOURCE, SWAP, "--no-such-option"], "Unknown option: --no-such-option. See promptweave edit --help"),
        (["edit", SOURCE, SWAP, "--guidence", "3"], "Unknown option: --guidence. Did you mean --guidance"),
        (["edit", SOURCE, SWAP, "--self", "0.4"], "Unknown option: --self. Did you mean --self-attention?"),
        (["bench", "find", "--first", "100000"], "from pair 100000, counted from 0. Begin earlier."),
        (["inpaint", "a.png", "a", "big dog"], "inpaint takes no further argument. Received 'big dog'. Quote texts of"),
        (["maps", "a cat", "--steps", "0"], "steps"),
        (["words", ""], "empty"),
        (["replay", "nothing.png"], "no file"),
        (["train", "--stage", "dream"], "--stage must be"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(run, arguments, message):
    code, out, err = run(*arguments, model=arguments[0] not in ("replay", "train"))
    assert code == 2 and not out and re.search(message, err), (code, out, err)
    assert "Traceback" not in err and not files()


@pytest.mark.parametrize("damage", ["missing", "empty", "corrupt"])
def test_bad_models(run, tiny_folder, damage):
    if damage == "empty":
        Path("model").mkdir()
    elif damage == "corrupt":
        shutil.copytree(tiny_folder, "model")
        weights = next(Path("model/unet").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    code, out, err = run("edit", SOURCE, SWAP, "--model", "./model", "-o", "run", model=False)
    assert code == 2 and "model" in err and "Traceback" not in err and not Path("run").exists()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "Nothing was written"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 1, "out of memory"),
        (MemoryError(), 1, "out of memory"),
        (ZeroDivisionError("x"), 1, "bug in promptweave"),
    ],
)
def test_interruptions_leave_nothing(run, monkeypatch, error, code, message):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("promptweave.models.unet.UNetModel.predict", broken)
    found, out, err = run("edit", SOURCE, SWAP, "--steps", "3", "-o", "run")
    assert found == code and message in err and not out and not files()


def test_an_earlier_run_survives_without_force(run):
    run("edit", SOURCE, SWAP, "--steps", "2", "-o", "run")
    before = Path("run/edit.json").read_bytes()
    code, _, err = run("edit", SOURCE, SWAP, "--steps", "3", "-o", "run")
    assert code == 2 and "already holds a run" in err and Path("run/edit.json").read_bytes() == before


def test_help_names_every_command(run):
    code, out, _ = run("--help", model=False)
    assert code == 0
    for command in ("generate", "edit", "words", "sites", "maps", "replay", "doctor", "train", "bench"):
        assert command in out


def test_record_and_edit_the_recording(run):
    code, out, _ = run("record", SOURCE, "--steps", "4", "-o", "run.safetensors")
    assert code == 0 and "The recording will take 0." in out and "wrote run.safetensors" in out
    code, _, err = run("record", SOURCE, "--steps", "4", "-o", "run.safetensors")
    assert code == 2 and "exists" in err
    code, out, _ = run("edit", "--recording", "run.safetensors", SWAP, "a photo of a lion riding a bike", "-o", "one")
    assert code == 0 and files(Path("one")) == {"source.png", "edit.png", "edit-2.png", "comparison.png", "edit.json"}
    code, out, _ = run("edit", SOURCE, SWAP, "a photo of a lion riding a bike", "--steps", "4", "-o", "two")
    for name in ("source.png", "edit.png", "edit-2.png"):
        with Image.open(f"one/{name}") as one, Image.open(f"two/{name}") as two:
            assert np.abs(np.asarray(one).astype(int) - np.asarray(two)).max() <= 1
    code, _, err = run("record", SOURCE, "--steps", "4", "-o", "big.safetensors", "--budget", "1k")
    assert code == 2 and "budget" in err and not Path("big.safetensors").exists()
    code, _, err = run("edit", "--recording", "run.safetensors", SWAP, "--steps", "5", "-o", "three")
    assert code == 2 and "recording's steps" in err


def test_a_sweep(run):
    code, out, _ = run(
        "sweep",
        SOURCE,
        SWAP,
        "--cross",
        "0,0.5,...,1",
        "--self-attention",
        "0,1",
        "--steps",
        "4",
        "--blend",
        "dog",
        "-o",
        "s",
    )
    assert code == 0 and "wrote s/sweep.png" in out and len(files(Path("s"))) == 6 + 3
    code, out, _ = run(
        "sweep", SOURCE, SWAP, "--weights", "bike=-1,2", "--seed", "1,2", "--steps", "2", "-o", "t", "--json"
    )
    assert code == 0 and json.loads(out)["columns"] == ["seed", [1, 2]]
    code, _, err = run("sweep", SOURCE, SWAP, "--cross", "0.5", "--self-attention", "0.5", "-o", "u")
    assert code == 2 and "two axes" in err


def test_a_file_of_jobs(run):
    lines = [{"source": SOURCE, "targets": [SWAP], "steps": 3}, {"name": "b", "source": SOURCE, "targets": [SWAP]}]
    Path("jobs.jsonl").write_text("\n".join(json.dumps({**line, "steps": 3}) for line in lines))
    code, out, _ = run("edit", "--jobs", "jobs.jsonl", "-o", "out")
    assert code == 0 and "2 jobs run, 0 already done" in out and Path("out/b/edit.png").exists()
    code, out, _ = run("edit", "--jobs", "jobs.jsonl", "-o", "out")
    assert code == 0 and "0 jobs run, 2 already done" in out
    Path("jobs.jsonl").write_text('{"source": "a cat", "targets": ["a horse"], "blend": "zebra"}')
    code, _, err = run("edit", "--jobs", "jobs.jsonl", "-o", "new")
    assert code == 2 and "line 1: " in err and not Path("new").exists()
    code, _, err = run("edit", "-o", "new")
    assert code == 2 and "SOURCE TARGET" in err


def test_another_scheduler(run):
    code, out, _ = run("edit", SOURCE, SWAP, "--steps", "3", "--scheduler", "euler-ancestral", "-o", "run", "--json")
    assert code == 0 and json.loads(out)["schedule"]["sampler"] == "euler-ancestral"
    code, out, _ = run("replay", "run/edit.png", model=False)
    assert code == 0 and "The pixels match." in out
    code, _, err = run("edit", SOURCE, SWAP, "--scheduler", "fast", "-o", "other")
    assert code == 2 and "ddim" in err


def test_all_views_of_a_run(run):
    Image.new("L", (32, 32), 255).save("cat.png")
    code, out, err = run(
        "maps", "a cat on a bike", "--steps", "3", "-o", "m/maps.png", "--steps-shown", "0,50",
        "--layers", "down,up_cross_0", "--word", "cat", "--heads", "--animate", "--video",
        "--self-attention", "components", "--self-attention", "pixel=3,4", "--stats", "m/s.csv",
        "--mask", "cat=cat.png", "--files", "m/all", "--grid", "all", "--renormalise", "--json",
    )  # fmt: skip
    assert code == 0, err
    made = json.loads(out)
    names = {"maps.png", "maps-steps.png", "maps-layers-cat.png", "maps.gif", "maps.webp", "maps-components.png"}
    names |= {"maps.mp4"}
    assert names | {"maps-pixels.png", "s.csv"} == {path.name for path in Path("m").iterdir() if path.is_file()}
    assert len(list(Path("m/all").iterdir())) == 2 * (2 + 3 + 3)  # steps, heads of three layers, of the word
    assert made["notes"] == ["Step 50 is past the end; step 2 is shown instead."] and made["file"] == "m/maps.png"
    assert "m/all/time_step_2_down_cross_0_res_16_head_1_1_cat.png" in made["files"]
    assert Path("m/s.csv").read_text().startswith("step,time,place,word,entropy,evenness,share,iou\n")
    code, _, err = run("maps", "a cat on a bike", "--steps", "3", "-o", "m/new.png", "--stats", "m/s.csv")
    assert code == 2 and "m/s.csv exists" in err and not Path("m/new.png").exists()


def test_maps_of_an_edit(run):
    code, out, _ = run("maps", SOURCE, SWAP, "--steps", "3", "-o", "m/maps.png", "--blend", "dog", "--json")
    assert code == 0 and files(Path("m")) == {"maps.png", "maps-own.png", "maps-alignment.png", "maps-masks.png"}
    assert ["swapped", "cat", "dog"] in [[p["kind"], p["source"], p["target"]] for p in json.loads(out)["pairs"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([SWAP, "--animate"], "--animate works with a single prompt"),
        (["--blend", "cat"], "--blend needs a target"),
        (["--word", "cat"], "--word needs --layers"),
        (["--files", "x"], "--files needs --steps-shown or --layers"),
        (["--stats", "x.txt"], ".csv or .json"),
        (["--steps-shown", "0,five"], "whole numbers"),
        (["--steps-shown=-3"], "counted from 0"),
        (["--layers", "sideways"], "Names: down_cross_0_res_16"),
        (["--self-attention", "pixel=3"], "pixel=x,y"),
        (["--self-attention", "components", "--self-grid", "5"], "has the grids 16x16, 8x8"),
        (["--self-attention", "pixel=300,4"], "pixels 0 to 31"),
        (["--grid", "5"], "have the grids"),
        (["--grid", "wide"], "takes a number"),
        (["--layers", "all", "--budget", "1K"], "budget of 0.0 MB"),
        (["--stats", "s.csv", "--mask", "cat=none.png"], "no image at none.png"),
        (["--stats", "s.csv", "--mask", "none.png"], "word=PICTURE"),
    ],
)
def test_bad_questions_leave_nothing(run, arguments, message):
    code, out, err = run("maps", SOURCE, *arguments, "--steps", "2")
    assert code == 2 and not out and message in err and "Traceback" not in err, err
    assert not files()


def test_a_table_shows_any_prompt_as_it_is_on_any_terminal(run, monkeypatch):
    """Rich's markup and emoji codes are text of the prompt here; an encoding without a character gets its code."""
    code, out, _ = run("words", "a [red] :cat: 猫", "a [blue] :cat: 猫")
    assert code == 0 and "prompt 1: a [red] :cat: 猫" in out and re.search(r"swapped +red +blue", out)
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with pytest.raises(SystemExit) as ended:
        main(["words", "a [red] :cat: 猫"])
    sys.stdout.flush()
    assert ended.value.code == 0 and rb"[red] :cat: \u732b" in raw.getvalue()

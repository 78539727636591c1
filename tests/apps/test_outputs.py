"""What commands write and say: names that say what they hold, folders that do not collide, models of recordings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.apps.terminal import Terminal, table
from promptweave.apps.web.session import Session
from promptweave.apps.web.studio import Studio
from promptweave.core.file_names import numbered
from promptweave.editing.drawn_sheet import DrawnSheet, sheet_writer
from promptweave.editing.recipe import BrokenRecipe

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"


@pytest.fixture()
def run(tmp_path, monkeypatch, capsys):
    """Run the command line in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str):
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        return (end.value.code or 0, *capsys.readouterr())

    return call


def test_results_stand_beside_earlier_ones_unless_a_folder_is_named(run, tiny_folder):
    small = ["--model", str(tiny_folder), "--steps", "2", "-q"]
    for _ in range(2):
        assert run("edit", SOURCE, TARGET, *small)[0] == 0
    assert {path.name for path in Path("out").iterdir()} == {"edit", "edit-2"}
    assert run("edit", SOURCE, TARGET, *small, "--force")[0] == 0 and not Path("out/edit-3").exists()
    code, _, err = run("edit", SOURCE, TARGET, *small, "-o", "out/edit")
    assert code == 2 and "already holds a run" in err
    Path("jobs.jsonl").write_text(json.dumps({"name": "a", "source": SOURCE, "targets": [TARGET]}))
    for done in ("1 jobs run", "0 jobs run, 1 already done"):  # a file of jobs goes on where it was
        assert f"{done}" in run("edit", "--jobs", "jobs.jsonl", *small[:-1])[1]
    assert Path("out/edit/a/edit.json").exists()


def test_numbered(tmp_path):
    (tmp_path / "empty").mkdir()
    assert numbered(tmp_path / "empty") == tmp_path / "empty"
    for name in ("maps.png", "maps-2.png"):
        assert numbered(tmp_path / "maps.png").name == name
        (tmp_path / name).touch()
    assert numbered(tmp_path / "maps.png").name == "maps-3.png"


def test_a_recording_is_edited_with_its_own_model(run, tiny_folder):
    """On the command line and in Python; a model that only a file names is loaded only if the user names it."""
    named = ("-m", str(tiny_folder), "--scheduler", "euler")
    assert run("record", "a red car", *named, "--steps", "2", "-o", "car.safetensors", "-q")[0] == 0
    code, out, err = run("edit", "--recording", "car.safetensors", "a blue car", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert (made["recipe"]["model"], made["recipe"]["scheduler"]) == (str(tiny_folder), "euler")
    assert made["computed"]["recording"] == {"whole": True}
    recording = pw.Recording.load("car.safetensors")
    result = pw.edit(recording, "a blue car")
    assert result.model_hash == recording.hash and result.recipe.scheduler == "euler"
    foreign = pw.Recording(pw.Recipe("a red car", model="owner/name"), 0, recording.track, recording.hash)
    with pytest.raises(BrokenRecipe, match="If you trust that model, name it"):
        pw.edit(foreign, "a blue car")


def test_captions_say_what_was_done(run, tiny_folder):
    """Targets with the source's prompt are not captioned with it."""
    tiny = pw.load(str(tiny_folder))
    turned = pw.edit(SOURCE, SOURCE, model=tiny, steps=1, controls=[pw.SemanticGuidance({"a hat": 4, "snow": -2})])
    assert [turned.caption(row) for row in (0, 1)] == [f"source: {SOURCE}", "edit: + a hat, - snow"]
    captions = {
        "cat -> dog": pw.Pix2PixZero("cat", "dog"), "bike x -2": pw.Reweight({"bike": -2}),
        "cat shaped as fox": pw.PromptMixing("cat", ("dog", "fox"), targets=(2, 1)),
        "cat in its box": pw.DirectedDiffusion({"cat": (0, 0, 0.5, 1)}, prompts=(1,)), "": pw.MasaCtrl(),
    }  # fmt: skip
    assert [control.caption(1) for control in captions.values()] == list(captions)


def test_a_steered_image_and_the_plain_one(run, tiny_folder):
    """Each under its own name, and both replay; so does the sheet."""
    tiny = pw.load(str(tiny_folder))
    assert run("pag", SOURCE, "--steps", "2", "-m", str(tiny_folder), "-o", "pag", "--images", "2")[0] == 0
    names = {f"{stem}{seed}.png" for stem in ("steered", "plain") for seed in ("", "-seed-1")}
    assert {path.name for path in Path("pag").iterdir()} == {*names, "comparison.png", "steered.json"}
    plain = pw.generate(SOURCE, model=tiny, steps=2, images=2)
    for image, name in enumerate(("plain.png", "plain-seed-1.png")):
        assert np.abs(np.asarray(Image.open(f"pag/{name}")).astype(int) - plain.sample.pictures[0, image]).max() <= 1
        assert pw.replay(f"pag/{name}").matches
    _, said = Session(Studio([tiny])).open("pag/plain.png", "", 0, 1)
    assert said.startswith("Restored: the pixels match")
    assert pw.replay("pag/steered-seed-1.png").matches and pw.replay("pag/comparison.png").matches
    both = pw.generate(SOURCE, model=tiny, steps=2, controls=[pw.PerturbedAttentionGuidance()], compare=True)
    both.save("both")
    assert pw.replay("both/plain.png").matches and pw.replay("both/comparison.png").matches


def test_single_maps_are_those_of_the_word_at_steps_that_were_run(run, tiny_folder):
    code, out, _ = run(
        "maps", "a cat on a bike", "--steps", "3", "-m", str(tiny_folder), "--steps-shown", "0,50", "--files", "single",
        "--word", "cat",
    )  # fmt: skip
    names = sorted(path.name for path in Path("single").iterdir())
    assert code == 0 and len(names) == 2 and all(name.endswith("_1_cat.png") for name in names)
    assert [name.split("_")[2] for name in names] == ["0", "2"]  # 50 is past the end
    with pytest.raises(DrawnSheet, match="drawn from attention maps .* again: promptweave maps 'a cat on a bike' --st"):
        pw.replay(Path("single", names[0]))
    assert "wrote 2 single maps to single, " in out and out.count("wrote") == 3 and "step 2 is shown instead" in out
    code, _, err = run("maps", "a cat", "--steps", "1", "-m", str(tiny_folder), "--steps-shown", "0", "--files", "b",
                       "--word", "dog")  # fmt: skip
    assert code == 2 and "'dog' has no map" in err


def test_what_a_file_of_anybody_says_cannot_steer_the_terminal(run, capsys):
    sheet_writer(Image.new("RGB", (8, 8)), "red \x1b[31m", "ring \a, \u0e04\u0e19")(Path("sheet.png"))
    code, _, err = run("replay", "sheet.png")
    assert code == 2 and r"is red \x1b[31m. Make it again: ring \x07, \u0e04" in err.replace("\u0e04", r"\u0e04")
    Terminal().say("title \x1b]0;gone\a", table("facts", ["name"], [["\x1b[2J"]]))
    assert not set("\x1b\a") & set("".join(capsys.readouterr()))


def test_doctor_refuses_what_no_model_can_be(run):
    code, out, err = run("doctor", "-m", "nonexist")
    assert code == 2 and not out and "neither an embedded model" in err, err
    code, _, err = run("doctor", "-m", "none.safetensors")
    assert code == 2 and "There is no file none.safetensors" in err
    code, out, _ = run("doctor", "-m", "owner/name")
    assert code == 0 and "it is not in the local cache" in out


def test_a_run_without_targets_says_where_its_image_is(tiny_folder):
    made = pw.generate(SOURCE, model=pw.load(str(tiny_folder)), steps=1)
    with pytest.raises(ValueError, match=r"its image is result\.source"):
        _ = made.edited

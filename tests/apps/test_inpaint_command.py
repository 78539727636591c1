"""Inpainting from the command line and on the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptweave.apps.cli import main
from promptweave.apps.web.history import changed
from promptweave.apps.web.session import Session
from promptweave.apps.web.settings import Form
from promptweave.apps.web.studio import Studio
from promptweave.methods import Inpaint, LocalBlend

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
MASK = ((0.0,) * 16,) * 8 + ((1.0,) * 16,) * 8


@pytest.fixture()
def run(tiny_folder, tmp_path, monkeypatch, capsys):
    """Run the command line with the tiny model in a folder with an image and a mask."""
    monkeypatch.chdir(tmp_path)
    picture = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 15, np.ones((8, 8, 3), np.uint8))
    Image.fromarray(picture).save("given.png")
    Image.fromarray((np.array(MASK) * 255).astype(np.uint8)).resize((32, 32), Image.Resampling.NEAREST).save("mask.png")

    def call(*arguments: str):
        code = 0
        try:
            main([*arguments, "--model", str(tiny_folder)])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


def test_a_mask_from_a_file_and_replay(run):
    code, out, err = run(
        "inpaint", "given.png", TARGET, "--mask", "mask.png", "--steps", "4", "--strength", "0.75",
        "--resamplings", "2", "--jump", "1", "-o", "run",
    )  # fmt: skip
    assert code == 0, err
    assert "Inpaint: latent steps 5, mask 50% at the end" in out and "PSNR of the source" not in out
    record = json.loads(Path("run/edit.json").read_text())
    (control,) = record["recipe"]["controls"]
    assert (control["control"], control["strength"], control["resamplings"], control["jump"]) == ("Inpaint", 0.75, 2, 1)
    assert np.array_equal(np.asarray(Image.open("run/mask.png")), np.asarray(Image.open("mask.png")) > 0)
    assert np.array_equal(np.asarray(Image.open("run/source.png")), np.asarray(Image.open("given.png")))
    assert run("replay", "run/edit.png")[1].strip() == "The pixels match."


def test_masks_that_are_found(run):
    code, _, err = run(
        "inpaint", "given.png", TARGET, "--mask-words", "cat", "--mask-threshold", "0.6", "--mask-maps", "noised",
        "--mask-grow", "1", "--source", SOURCE, "--steps", "2", "-o", "words", "--report", "--compare",
    )  # fmt: skip
    assert code == 0, err
    assert "Inpaint" in Path("words/report.html").read_text()
    code, _, err = run(
        "edit", SOURCE, TARGET, "--image", "given.png", "--mask", "diffedit:noises=2", "--steps", "2", "-o", "edit"
    )
    assert code == 0, err
    kinds = [one["control"] for one in json.loads(Path("edit/edit.json").read_text())["recipe"]["controls"]]
    assert kinds == ["Replace", "LocalBlend"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Inpainting needs one mask. Received none. Give --mask FILE"),
        (("--mask", "mask.png", "--mask-words", "dog"), "Received --mask and --mask-words"),
        (("--mask", "mask.png", "--source", SOURCE), "--source is read by masks that are found"),
        (("--mask", "mask.png", "--mask-threshold", "0.5"), "--mask-threshold is about --mask-words"),
        (("--mask", "mask.png", "--mask-grow", "1"), "--mask-grow is about --mask-words"),
        (("--mask", "mask.png", "--jump", "3"), "--jump is read with --resamplings"),
        (("--mask", "none.png"), "there is no image at none.png"),
        (("--mask-words", "zebra"), "'zebra' is not a word of the prompt"),
    ],
)
def test_what_is_refused(run, arguments, message):
    code, _, err = run("inpaint", "given.png", TARGET, *arguments, "--steps", "2")
    assert code != 0 and message in " ".join(err.split())


def test_the_painted_region_is_made_anew_on_the_page(tiny):
    session = Session(Studio([tiny]))
    session.generate(SOURCE, 3, 4)
    node = session.edit(Form(TARGET, mask=MASK, method="inpaint"))
    (control,) = node.recipe.controls
    assert (
        isinstance(control, Inpaint)
        and Form.of(node.recipe).method == "inpaint"
        and {"inpaint", "only the painted region"} <= set(changed(node))
    )
    before, after = (np.asarray(x).astype(int) for x in (session.base.pixels, node.pixels))
    assert np.abs(before - after)[20:].mean() > np.abs(before - after)[:12].mean()
    blended = session.edit(Form(TARGET, mask=MASK))
    assert isinstance(blended.recipe.controls[-1], LocalBlend) and Form.of(blended.recipe).method == "edit"
    with pytest.raises(ValueError, match="nothing is. Paint a region"):
        session.edit(Form(TARGET, method="inpaint"))

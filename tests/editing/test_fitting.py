"""What belongs to an image goes its way: in Python, recordings, sweeps, jobs, replays and on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from families import build_sd3
from PIL import Image

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.editing.jobs import read_jobs, run_jobs
from promptweave.editing.picture import BadPicture
from promptweave.editing.plan import plan
from promptweave.editing.settings import Settings
from promptweave.editing.who_reads import Unread
from promptweave.maps.edit_maps import masks_of

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
WIDE = np.full((32, 64, 3), 90, np.uint8)  # twice as wide as the model's images
WIDE[8:24, 24:40] = (250, 120, 40)
MASK = np.zeros((32, 64), np.uint8)
MASK[8:24, 24:40] = 1  # saved as 0 and 1
INSIDE = np.zeros((16, 16), bool)
INSIDE[4:12, 4:12] = True  # of the latents of the middle square, columns 16 to 47 of the image
FAST = {"steps": 2, "blend_start": 0.0}


@pytest.fixture()
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(WIDE).save("photo.png")
    Image.fromarray(MASK).save("mask.png")
    Image.fromarray(255 - MASK * 255).save("around.png")
    return tmp_path


def regions(result) -> list[np.ndarray]:
    return [mask.numpy() for mask in masks_of(result).values()]


def blended(result) -> np.ndarray:
    found = regions(result)
    assert found and all(np.array_equal(one, found[0]) for one in found)
    return found[0]


def test_the_mask_lies_on_its_picture_however_the_edit_is_asked_for(tiny, files):
    options = {"model": tiny, "image": "photo.png", **FAST}
    made = pw.edit(SOURCE, TARGET, mask="mask.png", **options)
    assert np.array_equal(blended(made), INSIDE)
    assert made.report["picture"].items() >= {"given": [32, 64], "size": [32, 32], "fit": "crop", "lost": 0.5}.items()
    assert made.report["distance"][0][0]["changed_pixels"] > 0
    for mask in (MASK, MASK.astype(bool), torch.from_numpy(MASK), Image.fromarray(MASK), MASK.tolist()):
        asked = {"mask": mask, "blend_start": 0.0}
        assert plan(SOURCE, [TARGET], tiny, asked, Settings(steps=2), image=WIDE) == made.recipe
    own = [pw.Refine(), pw.LocalBlend(mask=pw.read_mask("mask.png"), start=0.0)]
    assert np.array_equal(blended(pw.edit(SOURCE, TARGET, controls=own, model=tiny, image=WIDE, steps=2)), INSIDE)
    made.save("out")
    assert pw.replay("out/edit.png", model=tiny).matches
    assert pw.replay("out/edit.png", model=tiny).result.report["picture"] == made.report["picture"]
    recording = pw.Recording.load(pw.record(SOURCE, model=tiny, image=WIDE, steps=2).save("photo.safetensors"))
    assert np.array_equal(blended(pw.edit(recording, TARGET, mask=MASK, model=tiny, blend_start=0.0)), INSIDE)
    axes = {"rows": ("cross", (0.8,)), "columns": ("self_attention", (0.5,))}
    for cell in pw.sweep(SOURCE, TARGET, mask=MASK, **axes, **options).cells:
        assert np.array_equal(blended(cell[0]), INSIDE)
    job = {"source": SOURCE, "targets": TARGET, "image": "photo.png", "mask": "mask.png", **FAST}
    (files / "jobs.jsonl").write_text(json.dumps(job) + "\n" + json.dumps({**job, "mask": MASK.tolist()}) + "\n")
    jobs = read_jobs("jobs.jsonl", tiny)
    assert all(job.recipe == made.recipe for job in jobs) and run_jobs(jobs, tiny, "jobs")


@pytest.mark.parametrize(
    ("options", "size", "columns"),
    [
        ({"size": "auto"}, (22, 44), (16, 28)),  # columns 24 to 39 of 64
        ({"size": (32, 64)}, (32, 64), (24, 40)),
        ({"fit": "pad"}, (32, 32), (12, 20)),
        ({"fit": "stretch"}, (32, 32), (12, 20)),
        ({"fit": "crop", "size": (16, 16)}, (16, 16), (4, 12)),
    ],
)
def test_every_size_and_method_takes_the_mask_along(tiny, options, size, columns):
    made = pw.edit(SOURCE, TARGET, model=tiny, image=WIDE, mask=MASK, **options, **FAST)
    assert made.sample.pictures.shape[2:4] == size and made.report["picture"]["size"] == list(size)
    found = blended(made).any(0).nonzero()[0] * 2
    assert abs(found[0] - columns[0]) <= 2 and abs(found[-1] + 2 - columns[1]) <= 2
    assert made.recipe.fit == options.get("fit", "crop")


def test_flow_edit_and_masactrl_take_theirs_along(tiny, tokenizer):
    sd3 = pw.load(build_sd3(tokenizer))
    side = sd3.default_size[0]
    picture, mask = (np.kron(x, np.ones((side // 32,) * 2 + (1,) * (x.ndim - 2), np.uint8)) for x in (WIDE, MASK))
    made = pw.edit(SOURCE, TARGET, model=sd3, kind="flow", strength=1.0, image=picture, mask=mask, **FAST)
    found = blended(made)
    assert found.any(0).nonzero()[0][[0, -1]].tolist() == [found.shape[1] // 4, found.shape[1] * 3 // 4 - 1]
    rows = pw.read_mask(MASK)
    controls = [pw.MasaCtrl(0, masks=(rows, pw.read_mask(INSIDE)))]  # the target's is drawn over the result
    both = pw.edit(SOURCE, TARGET, model=tiny, image=WIDE, controls=controls, steps=2).recipe.controls[0].masks
    assert np.array_equal(np.array(both[0])[::2, ::2] > 0, INSIDE) and np.array_equal(np.array(both[1]) > 0, INSIDE)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"image": WIDE, "mask": MASK * 0}, pw.NoEffect, "The mask is empty"),
        ({"mask": np.zeros((32, 32))}, pw.NoEffect, "The mask is empty"),
        ({"controls": [pw.LocalBlend(mask=((0.0,),))]}, pw.NoEffect, "Paint white what may change"),
        ({"mask": np.eye(32)}, pw.NoEffect, "one of the 16 x 16 cells of the latents. Received a finer one"),
        ({"mask": np.eye(32), "blend": "dog", "combine": "union"}, pw.NoEffect, "Received a finer one"),
        ({"image": WIDE, "mask": MASK.T + 0}, BadPicture, "32 x 32 or 32 x 64 or a scaled one. Received 64 x 32"),
        ({"mask": MASK}, BadPicture, "that of the result, 32 x 32 or a scaled one. Received 32 x 64"),
        ({"mask": "none.png"}, FileNotFoundError, "no image at none.png"),
        ({"size": "auto"}, Unread, "size='auto' is about the shape of an input image"),
        ({"fit": "pad"}, Unread, "fit='pad' is about the way to the size of an input image"),
        ({"image": WIDE, "size": "wide"}, ValueError, "size must be .*auto"),
        ({"image": WIDE, "fit": "zoom"}, ValueError, "fit must be one of crop, pad, stretch"),
        ({"image": WIDE, "size": (30, 31)}, ValueError, "multiples of 2"),
        ({"image": np.zeros((20, 4000, 3), np.uint8)}, BadPicture, "would be 0.5% of it. Ask for size auto"),
    ],
)
def test_what_has_no_effect_or_no_meaning(tiny, options, kind, said):
    with pytest.raises(kind, match=said):
        pw.edit(SOURCE, TARGET, **{"model": tiny, "steps": 2, **options})


def test_the_command_line_says_what_becomes_of_an_image_and_its_masks(tiny_folder, files, capsys):
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--model", str(tiny_folder), "--steps", "2", "--image", "photo.png"])
        return end.value.code, *capsys.readouterr()

    code, out, err = call("edit", SOURCE, TARGET, "--mask", "mask.png", "-o", "edit")
    assert code == 0, err
    assert "image: 32 x 64 pixels (height x width), cropped to its middle and scaled to 32 x 32 (50% of it" in out
    code, out, err = call("masactrl", SOURCE, TARGET, "--masks", "mask.png", "around.png", "--start", "0", "-o", "masa")
    assert code == 0, err
    masks = json.loads((files / "masa" / "edit.json").read_text())["recipe"]["controls"][0]["masks"]
    assert np.array_equal(np.array(masks[0])[::2, ::2] > 0, INSIDE)
    assert np.array_equal(np.array(masks[1])[::2, ::2] > 0, ~INSIDE)
    for name, arguments in {
        "pnp": [TARGET],
        "translate": ["--source", "cat", "--target", "dog", "--attention-guidance", "0"],
    }.items():
        code, out, err = call(name, SOURCE, *arguments, "--size", "auto", "-o", name)
        assert code == 0 and "image: 32 x 64 pixels (height x width), scaled to 22 x 44\n" in out, err
        with Image.open(files / name / "edit.png") as image:
            assert image.size == (44, 22)
    code, out, err = call("record", SOURCE, "--fit", "pad", "-o", "r.safetensors", "--json")
    assert code == 0 and json.loads(out)["recipe"]["picture"].startswith("data:image/webp;given=32x64;fit=pad;"), err
    code, _, err = call("edit", SOURCE, TARGET, "--mask", "photo.txt", "-o", "none")
    assert code == 2 and "no image at photo.txt" in err and not (files / "none").exists()

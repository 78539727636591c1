"""`keep_original` through everything that edits an image, and what is said of the source before it is edited."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from families import build_sd3
from PIL import Image

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.editing.jobs import read_jobs, run_jobs
from promptweave.editing.picture import BadPicture, Picture
from promptweave.editing.recipe import BrokenRecipe, Recipe
from promptweave.editing.report import inversion_told, put_back_told
from promptweave.editing.who_reads import Unread

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
RUN = {"steps": 2, "guidance": 3.0, "keep_original": True}
HIGH, WIDE = 90, 140
PHOTO = np.random.default_rng(0).integers(0, 256, (HIGH, WIDE, 3), np.uint8)
MASK = np.zeros((HIGH, WIDE), bool)
MASK[20:70, 40:100] = True


def changed(result, given: np.ndarray = PHOTO) -> np.ndarray:
    image = np.asarray(result.edited)
    assert image.shape[:2] == given.shape[:2]
    return (image[..., :3] != given[..., :3]).any(-1)


@pytest.fixture(scope="module")
def flow(tokenizer):
    return pw.load(build_sd3(tokenizer))


@pytest.mark.parametrize("shape", [{"fit": "pad"}, {"size": "auto"}])
def test_outside_of_a_mask_the_file_stays(tiny, tmp_path, shape):
    made = pw.edit(SOURCE, TARGET, model=tiny, image=PHOTO, mask=MASK, **shape, **RUN)
    where = changed(made)
    assert where.any() and not where[~MASK].any()
    assert np.array_equal(np.asarray(made.source), PHOTO)
    facts = made.report["picture"]["put_back"][0]
    assert facts["confined"] and abs(facts["replaced"] - where.mean()) < 0.02
    folder = tmp_path / "run"
    made.save(folder)
    assert "psnr_autoencoder" not in made.report["picture"]  # a pinned source is what the autoencoder allows
    with Image.open(folder / "edit.png") as saved, Image.open(folder / "source.png") as source:
        assert saved.size == (WIDE, HIGH) and np.array_equal(np.asarray(source), PHOTO)
    if "fit" in shape:
        assert pw.replay(folder / "edit.png", model=tiny).matches


@pytest.mark.parametrize("name", ["MasaCtrl", "PlugAndPlay", "FlowEdit", "ddim"])
def test_every_editor_and_inversion_puts_back(tiny, flow, name):
    options = {
        "MasaCtrl": {"controls": [pw.MasaCtrl(0.0, 0)]},
        "PlugAndPlay": {"controls": [pw.PlugAndPlay()]},
        "FlowEdit": {"kind": "flow", "strength": 1.0},
    }.get(name, {"inversion": name})
    model = flow if name == "FlowEdit" else tiny
    made = pw.edit(SOURCE, TARGET, model=model, image=PHOTO, **options, **RUN)
    frame = slice(*(round(edge) for edge in made.recipe.picture.fitting.box[::2]))
    where = changed(made)
    assert not where[:, : frame.start - 1].any() and not where[:, frame.stop + 1 :].any()
    facts = made.report["picture"]["put_back"]
    assert len(facts) == 1 and not facts[0]["confined"] and facts[0]["replaced"] >= where.mean() - 1e-3


def test_a_turned_photo_a_transparent_one_and_one_of_16_bits(tiny, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTO).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "turned.jpg") as image:
        stored = np.asarray(image)
    made = pw.edit(SOURCE, TARGET, model=tiny, image=tmp_path / "turned.jpg", mask=MASK, **RUN)  # mask as stored
    assert not changed(made, np.rot90(stored, -1))[~np.rot90(MASK, -1)].any()
    clear = np.dstack([PHOTO, np.where(MASK, 200, 90).astype(np.uint8)])
    made = pw.edit(SOURCE, TARGET, model=tiny, image=clear, mask=MASK, **RUN)
    assert made.edited.mode == "RGBA" and np.array_equal(np.asarray(made.edited)[..., 3], clear[..., 3])
    assert not changed(made, clear)[~MASK].any()
    deep = PHOTO[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    made = pw.edit(SOURCE, TARGET, model=tiny, image=tmp_path / "deep.png", mask=MASK, **RUN)
    assert not changed(made, PHOTO[..., :1].repeat(3, -1))[~MASK].any()
    assert "bits" in made.report["picture"]["notes"]


def test_recordings_inversions_chains_jobs_and_sweeps_keep_it(tiny, tmp_path):
    fresh = pw.edit(SOURCE, TARGET, model=tiny, image=PHOTO, mask=MASK, **RUN)
    want = np.asarray(fresh.edited).astype(int)
    recording = pw.record(SOURCE, model=tiny, image=PHOTO, **RUN)
    once = pw.invert(SOURCE, PHOTO, model=tiny, **RUN)
    for given in (
        pw.Recording.load(recording.save(tmp_path / "r.safetensors")),
        pw.InvertedImage.load(once.save(tmp_path / "i.safetensors")),
    ):
        made = pw.edit(given, TARGET, model=tiny, mask=MASK)  # asked for when it was recorded
        assert np.abs(np.asarray(made.edited) - want).max() <= 2 and made.recipe == fresh.recipe
        assert pw.edit(given, TARGET, model=tiny, mask=MASK, keep_original=True).recipe == fresh.recipe
    bare = pw.record(SOURCE, model=tiny, image=PHOTO, **{**RUN, "keep_original": False})
    with pytest.raises(ValueError, match="keep_original, False. Received True"):
        pw.edit(bare, TARGET, model=tiny, keep_original=True)
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    lines = [{"source": SOURCE, "targets": [TARGET], "image": "photo.png", "mask": MASK.astype(int).tolist(), **RUN}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run_jobs(read_jobs(tmp_path / "jobs.jsonl", tiny), tiny, tmp_path / "jobs")
    with Image.open(tmp_path / "jobs" / "0001" / "edit.png") as image:
        assert np.array_equal(np.asarray(image), want)
    grid = pw.sweep(SOURCE, TARGET, model=tiny, image=PHOTO, mask=MASK, columns=("cross", (0.5,)),
                    rows=("self_attention", (0.5,)), **RUN)  # fmt: skip
    for row in grid.cells:
        assert all(not changed(cell)[~MASK].any() and cell.edited.size == (WIDE, HIGH) for cell in row)
    further = pw.record(fresh, model=tiny)
    chained = pw.edit(further, "a photo of a lion riding a bike", model=tiny)
    assert chained.edited.size == (WIDE, HIGH) and "put_back" in chained.report["picture"]
    where = changed(chained)
    edge = round(chained.recipe.root.picture.fitting.box[0])
    assert not where[:, : edge - 1].any()


def test_nothing_is_asked_for_in_vain(tiny):
    with pytest.raises(Unread, match="keep_original=True is about"):
        pw.edit(SOURCE, TARGET, model=tiny, keep_original=True)
    with pytest.raises(Unread, match="edits nothing"):
        pw.look(SOURCE, model=tiny, image=PHOTO, keep_original=True)
    plain = Picture.of(PHOTO, (32, 32))
    with pytest.raises(BadPicture, match="was not kept"):
        pw.edit(SOURCE, TARGET, model=tiny, image=plain, **RUN)


def test_an_original_in_a_strangers_recipe_is_checked(tiny):
    made = pw.edit(SOURCE, TARGET, model=tiny, image=PHOTO, **RUN).recipe
    for wrong in (b"no image", _png(np.zeros((3, 3), np.uint8)), _png(PHOTO, "GIF")):
        record = replace(made, picture=replace(made.picture, original=wrong)).as_dict()
        with pytest.raises(BrokenRecipe, match="original stored in the recipe"):
            Recipe.from_dict(record)
    assert Recipe.from_dict(made.as_dict()) == made


def test_the_source_is_measured_and_other_inversions_are_named(tiny):
    made = pw.edit(SOURCE, TARGET, model=tiny, image=PHOTO, inversion="ddim", steps=2, guidance=9.0)
    facts = made.report["picture"]
    assert next(iter(made.report)) == "picture" and next(iter(facts)) == "psnr"
    assert set(facts) >= {"psnr", "psnr_autoencoder"}
    said = inversion_told({**facts, "psnr": 20.0, "psnr_autoencoder": 24.0})
    assert "20.0 dB, of 24.0 dB" in said[0] and "4.0 dB less" in said[1] and "auto" in said[1]
    assert len(inversion_told({**facts, "psnr": 22.0, "psnr_autoencoder": 24.0})) == 1
    made = pw.edit(SOURCE, TARGET, model=tiny, image=PHOTO, inversion="auto:among=ddim+renoise", steps=2)
    (_, tried, *more) = inversion_told({**made.report["picture"], "psnr": 0.0})
    assert tried.startswith("tried: ddim ") and "renoise" in tried and not any("auto" in line for line in more)


def test_what_was_replaced_is_told():
    told = put_back_told(
        {"put_back": [
            {"replaced": 0.0, "of_frame": 0.0, "confined": False},
            {"replaced": 0.6, "of_frame": 1.0, "confined": False},
            {"replaced": 0.123, "of_frame": 0.2, "confined": True, "hidden": 0.5},
        ]}
    )  # fmt: skip
    assert "nothing changed" in told[0] and "nothing to keep" in told[1]
    assert "12.3% of the original replaced" in told[2] and "its region" in told[2] and "50%" in told[2]


def test_the_command_says_it_first(tiny_folder, tmp_path, capsys):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    arguments = ["--image", tmp_path / "photo.png", "--keep-original", "--steps", 2, "-m", tiny_folder]
    with pytest.raises(SystemExit) as end:
        main(
            list(
                map(str, ("masactrl", SOURCE, TARGET, "--start", 0, "--layers", 0, *arguments, "-o", tmp_path / "out"))
            )
        )
    assert end.value.code == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0].startswith("inversion direct: PSNR of the source to the input image")
    assert any("put back into the original" in line for line in lines)
    with Image.open(tmp_path / "out" / "edit.png") as image:
        assert image.size == (WIDE, HIGH)


def _png(values: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def test_inpainting_is_put_back_into_its_mask(tiny):
    made = pw.inpaint(PHOTO, SOURCE, mask=MASK, model=tiny, **{**RUN, "steps": 3})
    where = changed(made)
    assert where[30:60, 50:90].mean() > 0.5 and not where[~MASK].any()
    assert made.report["picture"]["put_back"][0]["confined"]


def test_every_hook_that_confines_says_so(flow):
    """KV-Edit keeps the background of a mask itself; DDS starts from the image."""
    made = pw.edit(SOURCE, TARGET, model=flow, image=PHOTO, kind="kvedit", mask=MASK, **{**RUN, "steps": 3})
    assert not changed(made)[~MASK].any() and made.report["picture"]["put_back"][0]["confined"]

"""A recording stands in for the source: the same pixels, fewer rows, and an error for what it does not hold."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from families import BUILDERS

import promptweave as pw
from promptweave.core.files import CannotWrite
from promptweave.core.rows import NotRecorded
from promptweave.editing.recipe import BrokenRecipe
from promptweave.editing.record import Recording, TooLarge
from promptweave.sampling import recording as recording_module

SOURCE, SWAP = "a photo of a cat riding a bike in the snow", "a photo of a dog riding a bike in the snow"
LONGER = "a photo of a black cat riding a bike in the snow"
FAMILIES = list(BUILDERS)
STEPS = 5


def same(a: pw.Result, b: pw.Result) -> None:
    torch.testing.assert_close(a.sample.latents, b.sample.latents, rtol=1e-3, atol=1e-3)
    assert np.abs(a.sample.pictures.astype(int) - b.sample.pictures).max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_of_a_recording_is_the_joint_run(family, tokenizer):
    model = pw.load(BUILDERS[family](tokenizer))
    settings = {"seed": 3, "images": 2, "steps": STEPS, "guidance": 3.0, "model": model}
    recording = pw.record(SOURCE, self_attention=0.6, joint=0.6, **settings)
    joint = any(site.kind == "joint" for site in model.sites((16, 16)))
    window = {"joint": 0.6} if joint else {"self_attention": 0.6}
    options = {"blend": ("dog", "cat"), "threshold": 0.8, "weights": {"snow": 2.0}, **window}
    joint = pw.edit(SOURCE, SWAP, LONGER, **options, **settings)
    again = pw.edit(recording, SWAP, LONGER, model=model, **options)
    assert joint.recipe == again.recipe
    same(joint, again)
    assert (joint.sample.latents[0] - joint.sample.latents[1]).abs().max() > 1e-3


def test_the_network_sees_the_targets_rows_only(tiny, monkeypatch):
    sizes: list[int] = []
    original = type(tiny).predict

    def count(self, z, *arguments, **options):
        sizes.append(len(z))
        return original(self, z, *arguments, **options)

    monkeypatch.setattr(type(tiny), "predict", count)
    recording = pw.record(SOURCE, model=tiny, steps=STEPS)
    assert set(sizes) == {2}
    sizes.clear()
    pw.edit(recording, SWAP, model=tiny)
    assert set(sizes) == {2}
    sizes.clear()
    pw.edit(SOURCE, SWAP, model=tiny, steps=STEPS)
    assert set(sizes) == {4}


@pytest.mark.parametrize("place", ["device", "cpu", "disk"])
def test_where_it_is_kept_makes_no_difference(tiny, place, tmp_path):
    recording = pw.record(SOURCE, model=tiny, steps=STEPS, place=place)
    same(pw.edit(recording, SWAP, model=tiny), pw.edit(SOURCE, SWAP, model=tiny, steps=STEPS))
    path = recording.save(tmp_path / "run.safetensors")
    again = Recording.load(path)
    assert (again.recipe, again.row, again.hash) == (recording.recipe, recording.row, recording.hash)
    same(pw.edit(again, SWAP, model=tiny), pw.edit(recording, SWAP, model=tiny))


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tiny, tmp_path, monkeypatch):
    """The blocks of a mapped file are taken before it is written to: without them, writing raises SIGBUS."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    taken, before = [], resource.getrlimit(resource.RLIMIT_FSIZE)
    allocate = recording_module._allocate
    monkeypatch.setattr(recording_module, "_allocate", lambda handle, size: allocate(handle, size) or taken.append(
        os.fstat(handle).st_blocks * 512 >= size))  # fmt: skip
    pw.record(SOURCE, model=tiny, steps=1, place="disk", cross=1.0)
    assert taken and all(taken)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))  # the disk takes files of at most so many bytes
    try:
        with pytest.raises(CannotWrite, match=f"needs room in {tmp_path}.*Make room, set TMPDIR"):
            pw.record(SOURCE, model=tiny, steps=1, place="disk", cross=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_any_windows_inside_and_none_outside(tiny):
    recording = pw.record(SOURCE, model=tiny, steps=10, cross=0.6, self_attention=(0.2, 0.5))
    inside = {"cross": (0.1, 0.5), "self_attention": (0.2, 0.3)}
    same(pw.edit(recording, SWAP, model=tiny, **inside), pw.edit(SOURCE, SWAP, model=tiny, steps=10, **inside))
    with pytest.raises(NotRecorded, match=r"lacks .*cross.* at step 7 of 10.*cross=0.6"):
        pw.edit(recording, SWAP, model=tiny, cross=0.8, self_attention=0.0)
    with pytest.raises(NotRecorded, match=r"self.* at step 1 of 10"):
        pw.edit(recording, SWAP, model=tiny, cross=0.0, self_attention=0.4)


def test_chained_edits(tiny, tmp_path):
    settings = {"model": tiny, "steps": STEPS, "seed": 7}
    first = pw.edit(SOURCE, SWAP, LONGER, blend=("dog", "cat"), **settings)
    for row, prompt in ((1, SWAP), (2, LONGER)):
        recording = pw.record(first, row=row, model=tiny)
        assert recording.prompt == prompt
        torch.testing.assert_close(recording.track.latents(STEPS), first.sample.latents[row], rtol=1e-5, atol=1e-5)
        second = pw.edit(recording, prompt.replace("snow", "night"), model=tiny)
        torch.testing.assert_close(second.sample.latents[0], first.sample.latents[row], rtol=1e-5, atol=1e-5)
        assert (second.sample.latents[1] - second.sample.latents[0]).abs().max() > 1e-3
        saved = second.save(tmp_path / str(row))
        picture = next(path for path in saved if path.name == "edit.png")
        again = pw.replay(picture, model=tiny)
        assert again.difference <= 1
        third = pw.record(second, model=tiny)
        assert third.recipe.base == first.recipe and third.recipe.base_row == row


def test_a_budget_is_kept_before_anything_is_computed(tiny, monkeypatch):
    from promptweave.editing.record import estimate
    from promptweave.sampling.recording import Kept

    recording = pw.record(SOURCE, model=tiny, steps=STEPS, images=2)
    guess = estimate(tiny, recording.recipe, Kept())
    assert guess == recording.bytes
    monkeypatch.setattr(type(tiny), "predict", lambda *a, **k: pytest.fail("the network ran"))
    with pytest.raises(TooLarge, match="budget of 0.0 MB.*Narrow"):
        pw.record(SOURCE, model=tiny, steps=STEPS, budget=1000)


def test_settings_that_are_not_the_recordings(tiny, tiny_v):
    recording = pw.record(SOURCE, model=tiny, steps=STEPS)
    with pytest.raises(ValueError, match="recording's steps, 5. Received 6"):
        pw.edit(recording, SWAP, model=tiny, steps=6)
    with pytest.raises(ValueError, match="with the model that made it"):
        pw.edit(recording, SWAP, model=pw.load(tiny.pipeline, scheduler="euler"))


def test_values_are_kept_when_asked(tiny):
    recording = pw.record(SOURCE, model=tiny, steps=STEPS, values=True)
    row = next(iter(recording.track.rows.values()))
    assert row.v.shape[:2] == row.k.shape[:2]
    bare = next(iter(pw.record(SOURCE, model=tiny, steps=STEPS).track.rows.values()))
    with pytest.raises(NotRecorded, match="values=True"):
        _ = bare.v


def test_files_that_are_no_recordings(tmp_path, tiny):
    path = tmp_path / "no.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(BrokenRecipe, match="not a recording"):
        Recording.load(path)
    with pytest.raises(FileNotFoundError):
        Recording.load(tmp_path / "missing.safetensors")
    with pytest.raises(ValueError, match=r"\.safetensors"):
        pw.record(SOURCE, model=tiny, steps=2).save(tmp_path / "run.pt")

"""UniEdit, DirectEdit and KVEdit as kinds of `edit`: command line, jobs, sweeps, recordings, replay and the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from families import build_sd3
from PIL import Image

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.apps.web.studio import Studio
from promptweave.editing.jobs import read_jobs, run_jobs
from promptweave.editing.plan import bind, plan
from promptweave.editing.settings import Settings
from promptweave.editing.who_reads import Unread
from promptweave.models.sd3 import T5_ATTRIBUTE

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
SMALL = {"size": (32, 32), "steps": 2}


@pytest.fixture(scope="module")
def dit(tokenizer):
    pipeline = build_sd3(tokenizer, t5=False)
    setattr(pipeline, T5_ATTRIBUTE, 0)
    return pw.load(pipeline)


@pytest.fixture()
def files(tmp_path):
    """A photo, and a mask of its left half."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((32, 32)).save(tmp_path / "photo.png")
    Image.fromarray(np.repeat(np.array([[255] * 16 + [0] * 16], np.uint8), 32, 0)).save(tmp_path / "mask.png")
    return tmp_path


def test_from_the_command_line_with_an_image_and_replayed(files, capsys):
    words = ["edit", SOURCE, TARGET, "--kind", "uniedit", "--omega", "2", "--strength", "0.5", "--model", "toybox-dit"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--image", str(files / "photo.png"), "--size", "32x32", "--steps", "2", "-o", str(files / "out")])
    assert end.value.code == 0, capsys.readouterr().err
    again = pw.replay(files / "out" / "edit.png")
    assert again.matches and again.result.recipe.controls == (pw.UniEdit(0.5, 2.0),)
    assert again.result.recipe.inversion == "uni-inv:pin=true"  # as published, as none was chosen


def test_in_jobs(files, dit):
    given = {"source": SOURCE, "targets": [TARGET], "size": "32x32", "steps": 2}
    lines = [
        {**given, "name": "direct", "kind": "directedit", "inject": 0.5, "blend": "cat", "image": "photo.png"},
        {
            **given,
            "name": "kv",
            "kind": "kvedit",
            "mask": "mask.png",
            "image": "photo.png",
            "inversion": "direct",
            "keep_original": True,
        },
    ]
    (files / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = {job.name: result for job, result in _done(files, dit)}
    assert done["direct"].recipe.controls == (pw.DirectEdit(0.5), pw.LocalBlend("cat"))
    assert done["direct"].recipe.inversion == "step-exact" and done["kv"].recipe.inversion == "direct"
    latents = done["kv"].sample.latents
    assert (latents[0, ..., 8:] == latents[1, ..., 8:]).all() and (latents[0] != latents[1]).any()
    edited, photo = (np.asarray(image) for image in (done["kv"].edited, Image.open(files / "photo.png")))
    assert (edited[:, 16:] == photo[:, 16:]).all() and (edited[:, :8] != photo[:, :8]).any()
    assert pw.replay(files / "out" / "kv" / "edit.png", model=dit).matches


def _done(files, dit):
    found = []
    run_jobs(
        read_jobs(files / "jobs.jsonl", dit), dit, files / "out", done=lambda job, result: found.append((job, result))
    )
    return found


def test_in_sweeps_and_on_recordings(files, dit):
    """Nothing is recorded for KV-Edit under classifier-free guidance; at guidance 1 a recording with values does."""
    mask = pw.read_mask(files / "mask.png")
    for kind, axis, more in (
        ("uniedit", ("omega", (1, 5)), {}),
        ("kvedit", ("strength", (0.5, 1.0)), {"mask": mask}),
    ):
        made = pw.sweep(SOURCE, TARGET, rows=axis, columns=("seed", (1,)), model=dit, kind=kind, **SMALL, **more)
        first, second = (np.asarray(row[0]) for row in made.pictures)
        assert (first != second).any()
    result = pw.edit(SOURCE, TARGET, model=dit, guidance=1, joint=0.5, **SMALL)
    recording = pw.record(result, model=dit, values=True, joint=1.0)
    chained = pw.edit(recording, "a photo of a lion riding a bike", model=dit, kind="kvedit", mask=mask)
    chained.save(files / "chained")
    assert pw.replay(files / "chained" / "edit.png", model=dit).matches


def test_on_the_page_a_recording_without_values_is_not_used(dit):
    studio = Studio([dit])
    made = studio.make(
        dit.name, pw.Recipe(SOURCE, model=dit.name, guidance=3.0, scheduler=dit.scheduler, **SMALL), None
    )
    edited = studio.edited(dit.name, made.recipe, 0, TARGET, {"kind": "directedit", "inject": 0.5})
    fresh = pw.edit(SOURCE, TARGET, model=dit, kind="directedit", inject=0.5, guidance=3.0, **SMALL)
    assert (edited.sample.pictures == fresh.sample.pictures).all()


def test_an_option_of_another_kind_is_named(dit):
    def refused(message, **options):
        with pytest.raises(Unread, match=message):
            plan(SOURCE, [TARGET], dit, options, Settings(**SMALL))

    refused("Nothing reads omega here: it is an option of UniEdit", kind="flow", omega=2.0)
    refused("Nothing reads inject here: it is an option of DirectEdit", kind="kvedit", blend="cat", inject=0.2)
    refused("Nothing reads reinitialise here: it is an option of KVEdit", kind="uniedit", reinitialise=True)
    refused(
        "threshold here: KVEdit reads it for a region of words", kind="kvedit", mask=((1.0, 0.0),) * 2, threshold=0.2
    )


def test_the_command_that_makes_it(dit):
    from promptweave.editing.command import command_of

    for options in ({"kind": "uniedit", "omega": 2.0}, {"kind": "kvedit", "blend": "cat", "reinitialise": True}):
        recipe = plan(SOURCE, [TARGET], dit, options, Settings(**SMALL))
        command = command_of(recipe, bind(recipe, dit))
        assert f"--kind {options['kind']}" in command and ("--omega 2" in command or "--reinitialise" in command)

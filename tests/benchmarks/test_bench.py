"""The speed benchmark and the training command, for a moment each."""

from __future__ import annotations

import json
import sys

import pytest
from families import build_sd3

from promptweave.apps.cli import main
from promptweave.benchmarks import bench_speed
from promptweave.sampling.loop import noise_for, sample
from promptweave.world import train
from promptweave.world.training import Training


def test_variants_compute_the_same_edit(tiny):
    """The explicit matrices are the same mathematics as the edit, so the race is fair."""
    noise = noise_for(tiny, 0)

    def run(name):
        return sample(tiny, bench_speed.PROMPTS, noise=noise, steps=3, controls=bench_speed.VARIANTS[name]).latents

    plain, edit, explicit = (run(name) for name in ("plain", "edit", "explicit matrices"))
    assert float((edit - explicit).norm() / edit.norm()) < 2e-5 < float((edit - plain).norm() / edit.norm())


def test_joint_attention_is_timed_in_steps_that_hold_its_window(tokenizer, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_speed, "peak", lambda *run: 1.0)  # its processes are the next test's
    build_sd3(tokenizer).save_pretrained(tmp_path / "sd3")
    command = ["bench", "speed", "--repeats", "1", "--model", str(tmp_path / "sd3"), "--json", "--steps"]
    for steps, code in (("5", 0), ("4", 2)):
        with pytest.raises(SystemExit) as end:
            main([*command, steps])
        assert end.value.code == code
    said = capsys.readouterr()
    assert json.loads(said.out)["edit"]["seconds"] > 0 and "at least 5" in said.err


def test_speed_table(tiny_folder, capsys, monkeypatch):
    two = {name: bench_speed.VARIANTS[name] for name in ("plain", "edit + local blend")}
    monkeypatch.setattr(bench_speed, "VARIANTS", two)
    with pytest.raises(SystemExit) as end:
        main(["bench", "speed", "--steps", "2", "--repeats", "1", "--model", str(tiny_folder), "--json"])
    assert end.value.code == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == set(bench_speed.VARIANTS)
    for found in figures.values():
        assert found["seconds"] > 0 and found["peak growth MB"] > 0
        assert found["seconds / plain"] == pytest.approx(found["seconds"] / figures["plain"]["seconds"])


@pytest.mark.parametrize("joint", [False, True])
def test_targets_table(tokenizer, tmp_path, tiny_folder, capsys, joint):
    folder = tiny_folder
    if joint:
        folder = tmp_path / "sd3"
        build_sd3(tokenizer).save_pretrained(folder)
    with pytest.raises(SystemExit) as end:
        main(["bench", "targets", "--steps", "3", "--repeats", "1", "--model", str(folder), "--json"])
    said = capsys.readouterr()
    assert end.value.code == 0, said.err
    figures = json.loads(said.out)
    assert len(figures) == 6 and figures["4 targets in one run"]["least"] == 0.625
    assert all(found["ratio"] > 0 and found["seconds"] > 0 for found in figures.values())


def test_a_failing_memory_run_says_why(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho There is no model >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RuntimeError, match="memory run of 'plain' failed: There is no model"):
        bench_speed.peak(str(tmp_path / "none"), "plain", 1, 1)


def test_train_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--stage", "vae", "--vae-minutes", "0.001", "--folder", str(tmp_path / "t"), "--quiet"])
    assert end.value.code == 0 and not capsys.readouterr().out
    assert (tmp_path / "t" / "codes.pt").is_file() and (tmp_path / "t" / "log.jsonl").is_file()


def test_options_of_training_are_the_recipes(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "train", lambda folder, recipe, minutes, *rest: seen.append((recipe, minutes)))
    given = ["--scenes", "50", "--batch", "7", "--rate", "0.002", "--bf16", "--seed", "3", "--joint-minutes", "9"]
    for options in ([], given):
        with pytest.raises(SystemExit) as end:
            main(["train", "--stage", "joint", "--folder", str(tmp_path), "--quiet", *options])
        assert end.value.code == 0
    assert seen[0] == (Training(), {"joint": 220})
    chosen = {"vae_batch": 7, "batch": 7, "joint_batch": 7, "rate": 0.002, "joint_rate": 0.002, "bf16": True}
    assert seen[1] == (Training(3, 50, 10, **chosen), {"joint": 9})


def test_scores_and_edits_are_at_the_models_own_settings(monkeypatch, capsys):
    """A model of few steps is judged at these, without guidance, unless others are asked for."""
    seen = []

    def judge(model, **options):
        seen.append((model.scheduler, options["steps"], options["guidance"]))
        return ({}, {}) if "pairs" in options else {}

    monkeypatch.setattr("promptweave.benchmarks.score.score", judge)
    monkeypatch.setattr("promptweave.benchmarks.bench_edits.bench_edits", judge)
    other = ["--steps", "2", "--guidance", "3"]
    for command in (["train", "--score"], ["train", "--score", *other, "--scheduler", "dpm++"], ["bench", "edits"]):
        with pytest.raises(SystemExit) as end:
            main([*command, "--model", "toybox-fast"])
        assert end.value.code == 0
    assert seen == [("ddim", 8, 1.0), ("dpm++", 2, 3.0), ("ddim", 8, 1.0)]
    said = " ".join(capsys.readouterr().out.split())
    assert "toybox-fast: 200 seeded prompts of each family, guidance 3, 2 steps" in said
    assert "50 pairs of each kind, 8 steps, guidance 1" in said


@pytest.mark.parametrize("name", ["sd3-random", "flux-random"])
def test_random_pipelines_have_the_true_shapes(name):
    """Built on the meta device: their layers and sites are those of the real models, but for their number."""
    import torch

    from promptweave.benchmarks.random_pipelines import RANDOM
    from promptweave.models.load import load

    with torch.device("meta"):
        pipeline = RANDOM[name]()
    model = load(pipeline)
    site = model.sites((128, 128))[0]
    assert (site.heads, site.dim) == ((24, 64) if name == "sd3-random" else (24, 128))
    assert site.queries == 4096 and model.words("a photo of a lion riding a bike").limit in (333, 512)

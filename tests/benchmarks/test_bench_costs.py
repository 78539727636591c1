"""Passes of the network that each inversion and editor takes, exactly; seconds and memory only so far as they exist."""

from __future__ import annotations

import json

import pytest
from families import build_sd3
from tiny import build_tiny

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.benchmarks import bench_costs, random_pipelines
from promptweave.benchmarks.bench_costs import cells

STEPS, SIZE = 2, (16, 16)
# Calls in a step, their rows, and calls for a gradient. A guided run of source and target has four rows.
EDIT = (1, 4, 0)
UNET = {
    "edit-friendly:skip=0.5": (0.5, 0.5, 0),
    "edit-friendly:skip=0.5, then an edit": (0.5, 2, 0),
    "infedit": (0, 0, 0),
    "infedit, then an edit": EDIT,
    "renoise:rounds=1,average=1,early=0": (2, 2, 0),
    "turbo-edit:skip=0": (1, 2, 0),  # guided
    "turbo-edit:skip=0, then an edit": (1, 6, 0),  # the target under the source's prompt, too
    # One pass of the inversion, one of the prompt, so many rounds, and one with the text that was found.
    "null-text:rounds=2,tolerance=0": (1 + 1 + 2 + 1, 5, 2),
    "null-latent:rounds=1,tolerance=0": (1 + 1 + 1 + 1 + 1, 6, 1),  # and a guided one to compare with
    "MasaCtrl": EDIT,
    "Plug-and-Play": EDIT,
    "pix2pix-zero": (2, 6, 1),  # a pass of source and target for the gradient of their maps
    "SEGA": (1, 6, 0),  # and the concept's prediction of both
    "DDS": (4, 16, 0),  # four iterations for each step
    "CDS": (8, 24, 4),
    "inpainting": (1, 2, 0),  # the image is not computed
    "RePaint": (5.5, 11, 0),  # ten times the first of two steps, and the last one once
}
JOINT = {
    "rf-solver": (2, 2, 0),
    "rf-solver, then an edit": (2, 8, 0),
    "fireflow": (1.5, 1.5, 0),
    "fireflow, then an edit": (1.5, 6, 0),
    "uni-inv": (1.5, 1.5, 0),
    "rf-inversion": (1, 1, 0),
    "step-exact": (1, 1, 0),
    "joint injection": EDIT,
    "FlowEdit": (0.5, 2, 0),
    "UniEdit": (0.5, 2, 0),
    "KV-Edit": EDIT,
}


@pytest.mark.parametrize(("build", "wanted"), [(build_tiny, UNET), (build_sd3, JOINT)], ids=["UNet", "joint"])
def test_passes_of_each_inversion_and_editor(tokenizer, build, wanted):
    model, seen = pw.load(build(tokenizer)), []
    names = [name for name in wanted if "then" not in name]
    made = {
        cost.name: cost
        for cost in bench_costs.bench_costs(
            model, names, steps=STEPS, guidance=4.0, size=SIZE, progress=lambda: seen.append(1)
        )
    }
    assert [cost.failed for cost in made.values()] == [""] * len(made) and len(seen) == len(names)
    assert {name: (made[name].passes, made[name].rows, made[name].gradients) for name in wanted} == wanted
    assert all(cost.seconds > 0 for cost in made.values())
    assert set(bench_costs.editors(model)) - set(names) <= {
        "no control",
        "Prompt-to-Prompt",
        "Prompt-to-Prompt, local blend",
        "Consist",
        "DirectEdit",
        "inpainting",
    }


def test_the_command_and_a_figure_that_fails(tokenizer, monkeypatch, capsys):
    monkeypatch.setitem(random_pipelines.RANDOM, "sd15-random", lambda: build_tiny(tokenizer))
    monkeypatch.setattr(random_pipelines, "narrow_vae", lambda: build_tiny(tokenizer).vae)
    run = ("--steps", "1", "--size", "16x16", "--device", "cpu")
    with pytest.raises(SystemExit) as end:
        main(["bench", "costs", "rf-solver", "no control", *run, "--json"])
    failed, edit = json.loads(capsys.readouterr().out)
    assert end.value.code == 0 and edit["passes"] == 1 and failed["passes"] == 0
    assert failed["failed"].startswith("CannotInvert: This inversion is for flow models")
    assert cells(bench_costs.Cost(**failed))[1].startswith("failed: CannotInvert")
    with pytest.raises(SystemExit) as end:
        main(["bench", "costs", "drect", *run])
    told = capsys.readouterr().err
    assert end.value.code == 2 and "Did you mean direct?" in told and "Editors that can be measured" in told


def test_all_that_a_model_has_is_measured(tokenizer):
    unet, joint = pw.load(build_tiny(tokenizer)), pw.load(build_sd3(tokenizer))
    for model in (unet, joint):
        named = [name.partition(":")[0] for name in bench_costs.check_names(model, ())]
        assert {"direct", "ddim", "no control", "inpainting"} <= set(named) and "auto" not in named
        assert len(set(named)) == len(named) - (model is unet)  # null-text twice, with checkpointing

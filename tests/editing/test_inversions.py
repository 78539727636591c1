"""Every inversion through edits, recordings, files, sweeps and the command line."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import build_sd3
from tiny import build_tiny

import promptweave as pw
from promptweave.editing.inversions import read_inversion
from promptweave.inversion import KNOWN, Auto, Direct, NullText, Proximal
from promptweave.inversion.inverting import names

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
SHORT = {"null-text": "null-text:rounds=1", "null-latent": "null-latent:rounds=1", "rf-solver": "rf-solver:inject=1"}
RUN = {"steps": 3, "guidance": 3.0}


def photo(size: tuple[int, int] = (32, 32)) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return coarse.repeat(size[0] // 4, 0).repeat(size[1] // 4, 1)


@pytest.fixture(scope="module")
def flow(tokenizer):
    return pw.load(build_sd3(tokenizer))


CASES = [("unet", name) for name in names(flow=False)] + [("flow", name) for name in names(flow=True)]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_fresh_recorded_inverted_once_and_replayed_are_the_same(tiny, flow, tmp_path, kind, name):
    model = tiny if kind == "unet" else flow
    given = {"image": photo(model.default_size), "inversion": SHORT.get(name, name), **RUN}
    if name == "auto":
        given["inversion"] = "auto:among=ddim+renoise"
    window = {} if kind == "unet" else {"joint": 1.0}
    fresh = pw.edit(SOURCE, TARGET, model=model, compare=True, **given, **window)
    assert fresh.plain is not None and fresh.plain.shape[0] == 1
    once = pw.invert(SOURCE, given["image"], model=model, inversion=given["inversion"], **RUN)
    once = pw.InvertedImage.load(once.save(tmp_path / "photo.safetensors"))
    again = pw.edit(once, TARGET, model=model, **window)
    assert again.recipe == fresh.recipe
    torch.testing.assert_close(again.sample.latents, fresh.sample.latents, rtol=1e-3, atol=1e-4)
    assert abs(once.psnr - fresh.report["picture"]["psnr"]) < 0.3
    recording = pw.record(SOURCE, model=model, values="inject" in given["inversion"], **given, **window)
    recording = pw.Recording.load(recording.save(tmp_path / "recording.safetensors"))
    torch.testing.assert_close(
        pw.edit(recording, TARGET, model=model, **window).sample.latents, fresh.sample.latents, rtol=1e-3, atol=1e-4
    )
    fresh.save(tmp_path / "run")
    assert pw.replay(tmp_path / "run" / "edit.png", model=model).difference <= 1


def test_comparisons_keep_what_the_inversion_does(tiny):
    """Without the controls, the target is still guided away from the source's text in negative-prompt inversion."""
    given = {"image": photo(), **RUN}
    made = pw.edit(SOURCE, TARGET, model=tiny, inversion="negative-prompt", compare=True, **given)
    once = pw.invert(SOURCE, inversion="negative-prompt", model=tiny, **given)
    alone = pw.sample(
        tiny, [SOURCE, TARGET], noise=once.inverted.noise, controls=once.inverted.controls, **RUN
    )  # fmt: skip
    assert np.abs(made.plain[0, 0].astype(int) - alone.pictures[1, 0]).max() <= 1
    plain = pw.edit(SOURCE, TARGET, model=tiny, inversion="ddim", compare=True, **given)
    assert not np.array_equal(made.plain, plain.plain)


def test_a_sweep_and_a_chained_edit_start_from_one_inversion(tiny, monkeypatch):
    calls = []
    original = NullText.find
    monkeypatch.setattr(NullText, "find", lambda self, task: calls.append(1) or original(self, task))
    once = pw.invert(SOURCE, photo(), model=tiny, inversion="null-text:rounds=1", **RUN)
    swept = pw.sweep(once, TARGET, model=tiny, rows=("cross", (0.0, 1.0)), columns=("self_attention", (0.0, 1.0)))
    edited = pw.edit(once, TARGET, model=tiny, cross=1.0, self_attention=1.0)
    assert len(calls) == 1
    torch.testing.assert_close(swept.cells[1][1].sample.latents, edited.sample.latents, rtol=1e-3, atol=1e-4)
    recording = pw.record(edited, model=tiny)  # replays the chain, and so inverts again
    second = pw.edit(recording, "a photo of a dog riding a car", model=tiny)
    torch.testing.assert_close(second.sample.latents[0], edited.sample.latents[1], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="uses the recording's guidance"):
        pw.edit(once, TARGET, model=tiny, guidance=5.0)
    with pytest.raises(ValueError, match="already has its image"):
        pw.edit(once, TARGET, model=tiny, image=photo())


def test_auto_takes_the_best_and_keeps_the_figures(tiny):
    made = pw.edit(SOURCE, TARGET, model=tiny, image=photo(), inversion=Auto("ddim+negative-prompt+renoise"), **RUN)
    report = made.report["picture"]
    figures = {name.removeprefix("PSNR of "): value for name, value in report["figures"].items()}
    assert set(figures) == {"ddim", "negative-prompt", "renoise"}
    assert figures[report["inversion"]] == max(figures.values())
    assert made.recipe.inversion == "auto:among=ddim+negative-prompt+renoise"
    exact = pw.invert(SOURCE, photo(), model=tiny, inversion="auto:among=ddim+direct", **RUN)
    assert exact.inverted.method == Direct()
    with pytest.raises(ValueError, match="among names inversions for this model.*Received rf-solver"):
        pw.invert(SOURCE, photo(), model=tiny, inversion="auto:among=rf-solver", **RUN)


def test_an_inversion_is_text_and_value():
    for name, kind in KNOWN.items():
        assert read_inversion(name) == kind() and kind().spec == name and kind().about.endswith(".")
        assert kind.flow or kind.diffusion
    given = Proximal(quantile=0.5, norm="l1", pin=True)
    assert given.spec == "proximal:quantile=0.5,norm=l1,pin=true" and read_inversion(given.spec) == given
    assert read_inversion(given) is given
    for text, message in {
        "nulltext": "Did you mean null-text",
        "null-text:round=3": "Did you mean rounds",
        "null-text:rounds": "NAME:OPTION=VALUE",
        "null-text:rounds=-1": "rounds must be a whole number, at least 0",
        "null-text:rounds=many": "rounds must be a whole number",
        "proximal:norm=l2": "one of l0, l1",
        "direct:pin=true": "no options",
        "": "There is no inversion",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_inversion(text)
        with pytest.raises(ValueError, match=message):
            pw.edit(SOURCE, TARGET, image=photo(), inversion=text or ":")


def test_a_file_that_is_none_is_refused(tiny, tmp_path):
    recording = pw.record(SOURCE, model=tiny, steps=2)
    path = recording.save(tmp_path / "recording.safetensors")
    with pytest.raises(ValueError, match="is not an inverted image"):
        pw.InvertedImage.load(path)
    once = pw.invert(SOURCE, photo(), model=tiny, **RUN)
    with pytest.raises(ValueError, match=r"saved as a \.safetensors file"):
        once.save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match="is not a recording"):
        pw.Recording.load(once.save(tmp_path / "photo.safetensors"))


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    from PIL import Image

    from promptweave.apps.cli import main

    def call(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return int(ended.value.code or 0)

    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo((64, 64))).save("photo.png")
    run = ("--model", "toybox-fast", "--scheduler", "ddim", "--steps", "2", "--guidance", "3", "--size", "64")
    words = ("a cat on the grass", "a dog on the grass")
    invert = ["invert", "photo.png", words[0], "--inversion", "negative-prompt:null=0.2", "--json", *run]
    assert call(*invert, "-o", "photo.safetensors") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["inversion"] == "negative-prompt:null=0.2" and made["psnr"] > 5
    edit = ["edit", "--recording", "photo.safetensors", words[1], *run[:4], "-o", "once"]
    assert call(*edit) == 0
    fresh = ["edit", *words, "--image", "photo.png", "--inversion", "negative-prompt:null=0.2", *run, "-o", "fresh"]
    assert call(*fresh) == 0
    capsys.readouterr()
    one, two = (np.asarray(Image.open(f"{name}/edit.png")) for name in ("once", "fresh"))
    assert np.array_equal(one, two)
    assert call("invert", "photo.png", words[0], "--inversion", "null", *run) != 0
    assert "Did you mean null-text" in capsys.readouterr().err.replace("\n", " ")


def test_what_no_machine_computes_is_refused_before_it_is_tried(tiny, tokenizer):
    for options, message in (({"size": (100_000, 100_000)}, "at most 67108864 pixels"), ({"images": 10**8}, "10000")):
        with pytest.raises(ValueError, match=message):
            pw.edit(SOURCE, TARGET, model=tiny, steps=1, **options)
    with pytest.raises(ValueError, match="at most 67108864 pixels"):
        pw.noise_for(tiny, 0, size=(100_000, 100_000))
    once = pw.invert(SOURCE, photo(), model=tiny, **RUN)
    with pytest.raises(ValueError, match="An inverted image is edited with the model that made it"):
        pw.edit(once, TARGET, model=pw.load(build_tiny(tokenizer, seed=1)))
    short = replace(once.inverted, path=tuple(z[..., :8] for z in once.inverted.path))
    with pytest.raises(ValueError, match="latents are not those of its model"):
        pw.edit(replace(once, inverted=short), TARGET, model=tiny)


def test_a_recording_of_a_run_that_leaves_out_its_first_steps(tiny):
    given = {"image": photo(tiny.default_size), "inversion": "edit-friendly:skip=0.5", **{**RUN, "steps": 4}}
    fresh = pw.edit(SOURCE, TARGET, model=tiny, **given)
    recording = pw.record(SOURCE, model=tiny, **given)
    assert len(recording.track.path) == 5
    again = pw.edit(recording, TARGET, model=tiny)
    torch.testing.assert_close(again.sample.latents, fresh.sample.latents, rtol=1e-3, atol=1e-4)

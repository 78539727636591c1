"""The Delta and the Contrastive Denoising Score against their loops written out on the tiny network."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from families import build_sd3

import promptweave as pw
from promptweave.methods.delta_denoising import TEMPERATURE, patch_loss, pooled

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
RUN = {"steps": 2, "guidance": 3.0, "seed": 4}


def photo(size: int = 32) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return coarse.repeat(size // 4, 0).repeat(size // 4, 1)


def times_of(count: int) -> list[int]:
    drawn = torch.randint(50, 949, (count,), generator=torch.Generator().manual_seed(RUN["seed"]))
    return [int(t) for t in drawn]


def optimised(model, rounds: int, contrast: float = 0.0, rate: float = 0.0488) -> torch.Tensor:
    """SGD of the authors' loss, whose gradient is taken by autograd: sum(z * difference) over the latent's cells."""
    image = model.to_latent(torch.from_numpy(photo()).double()[None] / 255)
    cells, z = image.shape[-2] * image.shape[-1], image.clone()
    text = model.encode([SOURCE, TARGET], ["", ""])
    generator = torch.Generator().manual_seed(RUN["seed"])
    places = torch.Generator().manual_seed(RUN["seed"])
    outputs: dict[str, torch.Tensor] = {}
    layers = {name: m for name, m in model.unet.named_modules() if name.endswith("attn1") and name.startswith("up")}
    watched = [  # what enters the last linear map is what the heads give
        m.to_out[0].register_forward_pre_hook(lambda _, given, name=name: outputs.__setitem__(name, given[0]))
        for name, m in layers.items()
    ]

    def noise_at(x, t, side):
        return model.unet(x, t, encoder_hidden_states=side).sample

    for t in times_of(RUN["steps"] * rounds):
        a = float(model.schedule().alpha_bar[t])
        n = torch.randn(image.shape, generator=generator).double()
        z = z.detach().requires_grad_()
        noised = [math.sqrt(a) * x + math.sqrt(1 - a) * n for x in (image, z)]
        guided = []
        for row, x in enumerate(noised):
            uncond, cond = (noise_at(x.detach(), t, side[row : row + 1]) for side in (text.uncond, text.cond))
            guided.append(uncond + RUN["guidance"] * (cond - uncond))
        loss = (z * (guided[1] - guided[0]).detach()).sum() / cells * 2000
        if contrast:
            found = []
            for row, x in enumerate(noised):
                noise_at(x, t, text.cond[row : row + 1])
                found.append({name: outputs[name][0] for name in layers})
            for name in layers:
                side = math.isqrt(found[0][name].shape[0])
                for size in (1, 2):
                    rows = [
                        F.normalize(F.avg_pool2d(f[name].T.reshape(1, -1, side, side), size).flatten(2)[0].T, dim=-1)
                        for f in found
                    ]
                    here = torch.randperm(len(rows[0]), generator=places)[:256]
                    similar = rows[0][here].detach() @ rows[1][here].T / TEMPERATURE
                    loss = loss + contrast * (similar.logsumexp(1) - similar.diagonal()).mean()
        (slope,) = torch.autograd.grad(loss, z)
        z = z - rate * cells / 2000 * slope
    for hook in watched:
        hook.remove()
    return z.detach()


def test_the_score_written_out(tiny64):
    made = pw.edit(
        SOURCE, TARGET, SOURCE, model=tiny64, image=photo(), controls=[pw.DeltaDenoising(rounds=2)], **RUN
    )  # fmt: skip
    image = tiny64.to_latent(torch.from_numpy(photo()).double()[None] / 255)
    source, target, same = made.sample.latents
    torch.testing.assert_close(target, optimised(tiny64, 2), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(source, image)
    torch.testing.assert_close(same, image, rtol=1e-12, atol=1e-12)  # the scores are equal
    assert float((target - image).abs().max()) > 1e-3


def test_the_contrastive_score_written_out(tiny64):
    control = pw.ContrastiveDenoising(rounds=1, weight=50.0)
    made = pw.edit(SOURCE, TARGET, model=tiny64, image=photo(), controls=[control], **RUN)
    wanted = optimised(tiny64, 1, contrast=50.0)
    torch.testing.assert_close(made.sample.latents[1], wanted, rtol=1e-6, atol=1e-7)
    assert float((wanted - optimised(tiny64, 1)).abs().max()) > 1e-5


def test_the_patch_loss_in_closed_form():
    """Equal unit features of n patches at right angles: log(1 + (n - 1) exp(-1 / tau)); none is more alike: log n."""
    eye = torch.eye(5, dtype=torch.float64)
    assert float(patch_loss(eye, eye)) == pytest.approx(math.log1p(4 * math.exp(-1 / TEMPERATURE)))
    assert float(patch_loss(eye, eye.mean(0, keepdim=True).expand(5, 5))) == pytest.approx(math.log(5))
    rows = torch.arange(12.0).view(1, 1, 6, 2) + 1  # a grid of 2 x 3: one patch of 2 x 2 fits
    whole = pooled(rows, (2, 3), 2)
    mean = rows[0, 0, [0, 1, 3, 4]].mean(0)
    torch.testing.assert_close(whole[0, 0, 0], mean / mean.norm())
    assert whole.shape == (1, 1, 1, 2) and pooled(rows, (2, 3), 1).shape == (1, 1, 6, 2)


def test_network_calls_and_the_source_is_generated_if_none_is_given(tiny, monkeypatch):
    calls, original = [], type(tiny).predict

    def predict(self, z, t, *arguments, **options):
        calls.append((len(z), int(t)))
        return original(self, z, t, *arguments, **options)

    monkeypatch.setattr(type(tiny), "predict", predict)
    made = pw.edit(SOURCE, TARGET, model=tiny, kind="dds", **RUN)
    times = [step.t for step in tiny.schedule().steps(RUN["steps"])]
    assert calls == [*((2, t) for t in times), *((4, t) for t in times_of(8))]
    plain = pw.generate(SOURCE, model=tiny, **RUN)
    np.testing.assert_array_equal(made.sample.pictures[0], plain.sample.pictures[0])
    calls.clear()
    pw.edit(SOURCE, TARGET, model=tiny, image=photo(), controls=[pw.ContrastiveDenoising(rounds=1)], **RUN)
    assert [size for size, _ in calls] == [2, 4] * 2  # features of source and target, then both under guidance


def test_from_the_command_line_in_jobs_and_replayed(tiny, tiny_folder, tmp_path, monkeypatch, capsys):
    from PIL import Image

    from promptweave.apps.cli import main

    def call(*arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return int(ended.value.code or 0)

    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo()).save("photo.png")
    run = ("--model", str(tiny_folder), "--steps", "2", "--guidance", "3")
    given = (SOURCE, TARGET, "--image", "photo.png", *run)
    assert call("cds", *given, "--rounds", "1", "-o", "cds") == 0
    recipe = json.loads((tmp_path / "cds" / "edit.json").read_text())["recipe"]
    assert "ContrastiveDenoising" in json.dumps(recipe["controls"]) and '"rounds": 1' in json.dumps(recipe)
    assert call("replay", "cds/edit.png") == 0, capsys.readouterr().err
    assert call("edit", *given, "--kind", "dds", "-o", "dds") == 0
    assert call("dds", *given, "--inversion", "ddim", "-o", "no") == 2
    assert "starts from the image itself" in capsys.readouterr().err
    line = {"source": SOURCE, "targets": [TARGET], "image": "photo.png", "kind": "dds"}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(line) + "\n")
    assert call("edit", "--jobs", "jobs.jsonl", "-o", "jobs", *run) == 0
    (one,) = (tmp_path / "jobs").rglob("edit.png")
    assert np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(tmp_path / "dds" / "edit.png")))


def test_what_cannot_work_is_refused(tiny, tokenizer):
    flow = pw.load(build_sd3(tokenizer))
    recording = pw.record(SOURCE, model=tiny, steps=2)
    dds, cds = pw.DeltaDenoising(rounds=1), pw.ContrastiveDenoising(rounds=1)
    for control, changes, said in (
        (dds, {"model": flow}, "this model is a flow model. Use FlowEdit"),
        (pw.DeltaDenoising(rate=0), {}, "a rate of 0"),
        (pw.ContrastiveDenoising(weight=0), {}, "is DeltaDenoising"),
        (dds, {"inversion": "ddim", "image": photo()}, "Nothing reads inversion"),
    ):
        with pytest.raises(ValueError, match=said):
            pw.edit(SOURCE, TARGET, controls=[control], **{"model": tiny, "steps": 2, **changes})
    with pytest.raises(ValueError, match="which a recording does not hold"):
        pw.edit(recording, TARGET, model=tiny, controls=[dds])
    with pytest.raises(ValueError, match="Only one control can choose the times.*DeltaDenoising and Contrastive"):
        pw.edit(SOURCE, TARGET, model=tiny, controls=[dds, cds], steps=2)

"""Inversions for few steps, InfEdit and TurboEdit, against their equations written out."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, HeunDiscreteScheduler, LCMScheduler
from test_methods import EXACT, SOURCE, STEPS, TARGET, flow, latents, noise_of, rows, task  # noqa: F401

import promptweave as pw
from promptweave.inversion import InfEdit, TurboEdit
from promptweave.inversion.inverting import CannotInvert
from promptweave.sampling.steps import clean_and_noise, output_of

CLOSE = {"rtol": 1e-7, "atol": 1e-8}  # noise is drawn in single precision


def with_scheduler(model, kind, prediction: str = "epsilon"):
    """The same network under another scheduler."""
    old = model.pipeline
    scheduler = kind.from_config(old.scheduler.config, timestep_spacing="trailing", prediction_type=prediction)
    parts = {**old.components, "scheduler": scheduler}
    return pw.load(type(old)(**parts, requires_safety_checker=False))


@pytest.fixture(scope="module")
def lcm(tiny64):
    return with_scheduler(tiny64, LCMScheduler)


def times_of(model) -> list[int]:
    """Four of the fifty times of a consistency model; those of the tiny model are every 250th."""
    return [999, 759, 499, 259] if model.scheduler == "lcm" else [751, 501, 251, 1]


def guided(model, text, z, t, side, guidance):
    uncond, cond = (noise_of(model, z, t, x[side : side + 1]) for x in (text.uncond, text.cond))
    return uncond + guidance * (cond - uncond)


@pytest.mark.parametrize(("kind", "eta"), [("lcm", 1.0), ("ddim", 0.4)])
def test_virtual_inversion_written_out(lcm, tiny64, kind, eta):
    """Algorithm 2 with the consistent noise, in the form of the noise instead of the clean latent."""
    model = lcm if kind == "lcm" else tiny64
    found = InfEdit(eta=eta).find(task(model, seed=5))
    image, generator = latents(model), torch.Generator().manual_seed(5)

    def draw():
        return torch.randn(image.shape, generator=generator).double()

    noise = draw()
    z = y = None
    times, table, text = (
        times_of(model),
        model.pipeline.scheduler.alphas_cumprod,
        model.encode([SOURCE, TARGET], [""] * 2),
    )
    for index, t in enumerate(times):
        a = float(table[t])
        z = math.sqrt(a) * image + math.sqrt(1 - a) * noise
        y = z if y is None else y
        torch.testing.assert_close(found.path[index], z, **CLOSE)
        e = guided(model, text, y, t, 1, 4.0) - guided(model, text, z, t, 0, 1.0) + noise
        clean = (y - math.sqrt(1 - a) * e) / math.sqrt(a)
        fresh = draw()
        if index + 1 < len(times):
            b = float(table[times[index + 1]])
            mixed = math.sqrt(1 - eta) * e + math.sqrt(eta) * fresh
            y = math.sqrt(b) * clean + math.sqrt(1 - b) * mixed
        noise = math.sqrt(1 - eta) * noise + math.sqrt(eta) * fresh
    made = rows(model, found, (SOURCE, TARGET))
    assert torch.equal(made[0], image[0])
    torch.testing.assert_close(made[1], clean[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "epsilon"])
def test_the_same_prompt_is_the_image_for_every_kind_of_prediction(tiny64, prediction):
    model = with_scheduler(tiny64, LCMScheduler, prediction)
    found = InfEdit().find(task(model, guidance=1.0, steps=2))
    for row in rows(model, found, (SOURCE, SOURCE), guidance=1.0):
        torch.testing.assert_close(row, latents(model)[0], rtol=1e-9, atol=1e-9)
    z, output = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64)
    clean, _ = clean_and_noise(output, z, 0.3, prediction)
    torch.testing.assert_close(output_of(clean, z, 0.3, prediction), output)
    assert float((rows(model, found, (SOURCE, TARGET), guidance=1.0)[1] - latents(model)[0]).abs().max()) > 1e-3


def counted(monkeypatch, model) -> list[int]:
    calls, original = [], type(model).predict

    def predict(self, z, *arguments, **options):
        calls.append(len(z))
        return original(self, z, *arguments, **options)

    monkeypatch.setattr(type(model), "predict", predict)
    return calls


def test_network_calls(tiny64, monkeypatch):
    """InfEdit finds its path without the network; TurboEdit needs one pass a step, and one more row in the run."""
    calls = counted(monkeypatch, tiny64)
    found = InfEdit().find(task(tiny64))
    assert calls == []
    rows(tiny64, found, (SOURCE, TARGET))
    assert calls == [4] * STEPS  # both halves of source and target
    calls.clear()
    found = TurboEdit(skip=0.25).find(task(tiny64, guidance=1.0))
    assert calls == [1] * 3
    rows(tiny64, found, (SOURCE, TARGET), guidance=1.0)
    assert calls[3:] == [4] * 3  # source and target, each also with the source's prompt
    calls.clear()
    rows(tiny64, TurboEdit(weight=1.0).find(task(tiny64, guidance=1.0)), (SOURCE, TARGET), guidance=1.0)
    assert calls[3:] == [2] * 3


def test_prompt_to_prompt_mutual_attention_and_local_blend_act_on_top(lcm):
    """The paper's unified attention control, out of our controls; outside the blend's mask nothing changes at all."""
    found = InfEdit().find(task(lcm, steps=2))
    mask = tuple(tuple(float(x < 8) for x in range(16)) for _ in range(16))
    controls = [pw.Replace(), pw.MasaCtrl(start=0), pw.LocalBlend(mask=mask, start=0)]
    made = [rows(lcm, found, (SOURCE, TARGET), controls=controls[:count])[1] for count in (0, 2, 3)]
    assert all(not torch.allclose(a, b) for a, b in zip(made, made[1:], strict=False))
    assert torch.equal(made[2][..., 8:], latents(lcm)[0][..., 8:])
    assert not torch.allclose(made[2][..., :8], latents(lcm)[0][..., :8])


def test_turbo_edit_written_out(tiny64, weight=1.5):
    """The three terms of the authors' step, at the times of SDXL-Turbo's scheduler: one of four is skipped."""
    model = with_scheduler(tiny64, EulerAncestralDiscreteScheduler)
    found = TurboEdit(weight=weight, limit=0.01).find(task(model, guidance=1.0, seed=3))
    image, generator = latents(model), torch.Generator().manual_seed(3)
    table, times = model.pipeline.scheduler.alphas_cumprod.double(), [749, 499, 249]
    draws = [torch.randn(image.shape, generator=generator).double() for _ in times]
    levels = [float(table[t]) for t in (499, 249)]  # a step earlier than the network is told; 249 - 250 is the image
    path = [math.sqrt(a) * image + math.sqrt(1 - a) * n for a, n in zip(levels, draws, strict=False)] + [image, image]
    text, y = model.encode([SOURCE, TARGET], ["", ""]).cond, path[0]
    for index, t in enumerate(times):
        a = float(table[t])
        b = float(table[times[index + 1]]) if index < 2 else 1.0

        def mean(z, row, a=a, b=b, t=t):  # of DDPM, in the form of Ho et al. 2020, eq. 7
            e = noise_of(model, z, t, text[row : row + 1])
            clean = (z - math.sqrt(1 - a) * e) / math.sqrt(a)
            return math.sqrt(b) * (1 - a / b) / (1 - a) * clean + math.sqrt(a / b) * (1 - b) / (1 - a) * z

        there, exact = mean(path[index], 0), path[index + 1]
        size = float((exact - there).square().mean().sqrt())
        kept = min(1.0, 0.01 / size) if index == 2 else 1.0
        y = kept * exact + weight * (mean(y, 1) - mean(y, 0)) + mean(y, 0) - kept * there
        torch.testing.assert_close(found.more["noises"][index + 1], kept * (exact - there), **CLOSE)
    made = rows(model, found, (SOURCE, TARGET), guidance=1.0)
    assert torch.equal(made[0], image[0]) and found.figures["skipped steps"] == 1
    torch.testing.assert_close(made[1], y[0], rtol=1e-5, atol=1e-6)


def test_turbo_edit_with_guidance_leaves_the_same_prompt_alone(tiny64):
    found = TurboEdit(limit=0).find(task(tiny64))
    torch.testing.assert_close(rows(tiny64, found, (SOURCE, SOURCE))[1], latents(tiny64)[0], **EXACT)


def test_what_cannot_work_is_refused(tiny64, lcm, flow):  # noqa: F811
    heun = with_scheduler(tiny64, HeunDiscreteScheduler)
    for method, model, changes, said in (
        (TurboEdit(), tiny64, {"steps": 50}, "at most 10.*Received 50 steps of tiny64.*edit-friendly"),
        (TurboEdit(), flow, {}, "is a flow model.*rf-inversion"),
        (InfEdit(), flow, {}, "is a flow model.*rf-inversion"),
        (InfEdit(), heun, {}, "one network call a step.*'heun' with 4 steps"),
        (InfEdit(skip=1.0), tiny64, {}, "at least one of the 4 steps"),
        (TurboEdit(skip=0.9), tiny64, {}, "at least one of the 4 steps"),
    ):
        with pytest.raises(CannotInvert, match=said):
            method.find(task(model, **changes))
    with pytest.raises(CannotInvert, match="or choose infedit"):
        pw.invert(SOURCE, torch.rand(32, 32, 3), model=lcm, steps=4)

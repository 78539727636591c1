"""UniEdit-Flow, DirectEdit and KV-Edit against their equations written out, and what must not move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.transformers import transformer_flux
from families import build_flux, build_sd3

import promptweave as pw
from promptweave.core.control import NoEffect
from promptweave.core.rows import NotRecorded
from promptweave.inversion import Direct, StepExact, UniInv
from promptweave.inversion.inverting import CannotInvert, Task
from promptweave.methods.uniedit_flow import weight_of
from promptweave.models.sd3 import T5_ATTRIBUTE
from promptweave.sampling.loop import Job

SOURCE, TARGET = "a photo of a cat riding a bike in the snow", "a photo of a dog riding a bike in the snow"
STEPS = 4
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # diffusers keeps the levels of flow models in single precision
HALF = tuple(tuple(float(column < 8) for column in range(16)) for _ in range(16))
WHOLE = ((1.0,) * 16,) * 16
Change = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module", params=["sd3", "flux"])
def model(request, tokenizer):
    return pw.load(build_flux(tokenizer).to(torch.float64)) if request.param == "flux" else short(tokenizer)


@pytest.fixture(scope="module")
def flux(tokenizer):
    return pw.load(build_flux(tokenizer).to(torch.float64))


def short(tokenizer, **options):
    """Stable Diffusion 3 without T5, whose tokens take most of the time."""
    pipeline = build_sd3(tokenizer, t5=False, **options)
    setattr(pipeline, T5_ATTRIBUTE, 0)
    return pw.load(pipeline.to(torch.float64))


@cache
def encoded(model, prompt):
    return model.encode([prompt], [""])


@pytest.fixture(scope="module")
def dual(tokenizer):
    return short(tokenizer, dual=(0, 1))


def run(model, prompts, controls=(), images=2, noise=None, **options):
    noise = pw.noise_for(model, 1, images).double() if noise is None else noise
    settings: dict[str, Any] = {"steps": STEPS, "guidance": 3.0, "seed": 1, **options}
    return pw.sample(model, prompts, noise=noise, controls=list(controls), **settings)


def levels(model, noise, steps=STEPS) -> list[tuple[float, float, float]]:
    """(time, level, next level) of each step."""
    found = Job([SOURCE], noise, steps).solver(model).steps
    return [(step.t, step.t / 1000, max(step.t_next, 0) / 1000) for step in found]


def predicted(model, z, t, prompt, guidance=1.0, uncond=False):
    text = encoded(model, prompt)
    context, pooled = (text.uncond, text.uncond_pooled) if uncond else (text.cond, text.pooled)
    many = context.expand(len(z), -1, -1), pooled.expand(len(z), -1)
    with torch.no_grad():
        return model.predict(z, t, many[0], None, pooled=many[1], guidance=torch.tensor([guidance] * len(z)))


def guided(model, z, t, prompt, guidance):
    cond = predicted(model, z, t, prompt, guidance)
    if not model.guided or guidance == 1:
        return cond
    uncond = predicted(model, z, t, prompt, uncond=True)
    return uncond + guidance * (cond - uncond)


def path_of(model, noise, guidance):
    """The source's latents by Euler's method, from noise to image."""
    path = [noise]
    assert encoded(model, TARGET)  # which is not to be done under changed attention
    for t, s, following in levels(model, noise):
        path.append(path[-1] + (following - s) * guided(model, path[-1], t, SOURCE, guidance))
    return path


@contextmanager
def attention(monkeypatch, change: Change) -> Iterator[None]:
    """Diffusers' own processors, with `change(number of the layer, q, k, v)` in place of the keys and values."""
    plain, count = F.scaled_dot_product_attention, [0]

    def changed(q, k, v, **options):
        k, v = change(count[0], q, k, v)
        count[0] += 1
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v

    def flux(q, k, v, **options):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return changed(q, k, v).transpose(1, 2)

    with monkeypatch.context() as patch:
        patch.setattr(transformer_flux, "dispatch_attention_fn", flux)
        patch.setattr(F, "scaled_dot_product_attention", lambda *x, **o: changed(*x) if x[0].ndim == 4 else plain(*x))
        yield


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_uniedit_is_the_paper_s_step_written_out(model, guidance):
    noise = pw.noise_for(model, 1, 2).double()
    made = run(model, [SOURCE, TARGET], [pw.UniEdit(0.5, omega=2.0)], guidance=guidance)
    path = path_of(model, noise, guidance)
    x, omega = path[2], 2.0
    for t, s, following in levels(model, noise)[2:]:
        v_s, v_t = (predicted(model, x, t, prompt, guidance) for prompt in (SOURCE, TARGET))
        d = v_t - v_s
        size = d.abs().mean(1, keepdim=True)
        low, high = (f(size.flatten(1), 1).view(-1, 1, 1, 1) for f in (torch.amin, torch.amax))
        m = (size - low) / (high - low)
        g_s, g_t = (guided(model, x, t, prompt, guidance) for prompt in (SOURCE, TARGET))
        x = x + (following - s) * (m * g_t + (1 - m) * g_s + omega * (1 + m) * d)
    torch.testing.assert_close(made.latents[1], x, **CLOSE)
    torch.testing.assert_close(made.latents[0], path[-1], **CLOSE)
    assert (made.latents[1] - made.latents[0]).abs().max() > 1e-2
    assert made.reports[0]["latent_steps"] == 2 and 0 < made.reports[0]["edit_area"][0] < 1


def test_uniedit_without_a_difference_is_the_source(model):
    made = run(model, [SOURCE, SOURCE], [pw.UniEdit()])
    torch.testing.assert_close(made.latents[1], made.latents[0], **CLOSE)
    assert not weight_of(torch.zeros(1, 1, 2, 3, 3)).any()
    given = torch.tensor([1.0, -3.0, 5.0]).view(1, 1, 1, 1, 3)
    torch.testing.assert_close(weight_of(given).flatten(), torch.tensor([0.0, 0.5, 1.0]))


def test_uniedit_of_an_image_starts_on_its_path_at_guidance_1(model):
    """Only the last steps call the network, with the conditional half alone, and equal prompts are Euler's method."""
    latents = 0.7 * pw.noise_for(model, 2).double()
    found = UniInv(pin=True).find(Task(model, latents, SOURCE, STEPS, 3.0))
    calls: list[int] = []
    plain = model.predict
    model.predict = lambda z, *x, **o: calls.append(len(z)) or plain(z, *x, **o)
    try:
        made = run(model, [SOURCE, SOURCE], [*found.controls, pw.UniEdit(0.5)], noise=found.noise, inverted=found)
    finally:
        del model.predict
    assert calls == [4, 4]  # source and target, each under both prompts
    x = found.path[2]
    for t, s, following in levels(model, found.noise)[2:]:
        x = x + (following - s) * predicted(model, x, t, SOURCE)
    torch.testing.assert_close(made.latents[1], x, **CLOSE)
    assert torch.equal(made.latents[0], latents)
    guided = run(
        model, [SOURCE, TARGET], [*found.controls, pw.UniEdit(guidance=4.0)], noise=found.noise, inverted=found
    )
    unguided = run(model, [SOURCE, TARGET], [*found.controls, pw.UniEdit()], noise=found.noise, inverted=found)
    assert (guided.latents[1] - unguided.latents[1]).abs().max() > 1e-3


def test_step_exact_reads_the_source_where_its_inversion_did(model):
    latents = 0.7 * pw.noise_for(model, 2, 2).double()
    task = Task(model, latents, SOURCE, STEPS, 1.0)
    found = StepExact().find(task)
    made = run(model, [SOURCE, TARGET], (), noise=found.noise, guidance=1.0, inverted=found)  # without the pin
    torch.testing.assert_close(made.latents[0], latents, **CLOSE)
    plain = run(model, [SOURCE], (), noise=found.noise, guidance=1.0).latents[0]
    assert (plain - latents).abs().max() > 1e-2  # Euler's method alone misses it
    z = found.noise
    for number, (t, s, following) in enumerate(levels(model, found.noise)):
        ahead = z + found.path[number + 1] - found.path[number]
        z = z + (following - s) * predicted(model, ahead, t, TARGET)
    torch.testing.assert_close(made.latents[1], z, **CLOSE)
    pinned = run(model, [SOURCE, TARGET], found.controls, noise=found.noise, inverted=found)
    assert torch.equal(pinned.latents[0], latents)


def test_step_exact_is_for_flow_models(tiny):
    with pytest.raises(CannotInvert, match="for flow models"):
        StepExact().find(Task(tiny, pw.noise_for(tiny, 0), SOURCE, STEPS))


def image_of(model) -> slice:
    site = model.sites((16, 16))[0]
    assert site.image is not None
    return site.image


def test_direct_edit_uses_the_source_s_values_of_the_image(model, monkeypatch):
    noise = pw.noise_for(model, 1).double()
    made = run(model, [SOURCE, TARGET], [pw.DirectEdit(0.5)], images=1, guidance=1.0)
    path, z, image = path_of(model, noise, 1.0), noise, image_of(model)
    depth = len(model.sites((16, 16)))
    acting = range(2, depth) if not model.guided else range(depth - 1)  # the single blocks of FLUX
    for number, (t, s, following) in enumerate(levels(model, noise)):
        values: list[torch.Tensor] = []

        def keep(layer, q, k, v, values=values):
            values.append(v[..., image, :])
            return k, v

        def inject(layer, q, k, v, values=values, number=number):
            if layer in acting and number < 2:
                v = v.clone()
                v[..., image, :] = values[layer]
            return k, v

        with attention(monkeypatch, keep):
            predicted(model, path[number], t, SOURCE)
        with attention(monkeypatch, inject):
            z = z + (following - s) * predicted(model, z, t, TARGET)
    torch.testing.assert_close(made.latents[1], z, **CLOSE)
    plain = run(model, [SOURCE, TARGET], images=1, guidance=1.0)
    assert (made.latents[1] - plain.latents[1]).abs().max() > 1e-4
    same = run(model, [SOURCE, SOURCE], [pw.DirectEdit(0.25)], images=1)
    torch.testing.assert_close(same.latents[1], same.latents[0], **CLOSE)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_kv_edit_is_the_paper_s_with_the_foreground_s_tokens_alone(model, monkeypatch, guidance):
    """Of the target's background nothing is read: in the form written out it is zeros before each call."""
    noise = pw.noise_for(model, 1).double()
    made = run(model, [SOURCE, TARGET], [pw.KVEdit(HALF, strength=0.5)], images=1, guidance=guidance)
    path, image = path_of(model, noise, guidance), image_of(model)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[:, :4] = True
    kept, z = ~inside.flatten(), path[2]
    for number, (t, s, following) in list(enumerate(levels(model, noise)))[2:]:
        source: list[tuple[torch.Tensor, torch.Tensor]] = []

        def keep(layer, q, k, v, source=source):
            source.append((k[..., image, :], v[..., image, :]))
            return k, v

        def background(layer, q, k, v, source=source):
            k, v = k.clone(), v.clone()
            for x, of in zip((k, v), source[layer], strict=True):
                x[..., image, :] = torch.where(kept[:, None], of, x[..., image, :])
            return k, v

        with attention(monkeypatch, keep):
            predicted(model, path[number], t, SOURCE, guidance)
        z = z.clone()
        z[..., 8:] = 0
        with attention(monkeypatch, background):
            velocity = predicted(model, z, t, TARGET, guidance)
        if model.guided and guidance != 1:
            source.clear()
            with attention(monkeypatch, keep):
                predicted(model, path[number], t, SOURCE, uncond=True)
            with attention(monkeypatch, background):
                uncond = predicted(model, z, t, TARGET, uncond=True)
            velocity = uncond + guidance * (velocity - uncond)
        z = z + (following - s) * velocity
        z[..., 8:] = path[number + 1][..., 8:]
    torch.testing.assert_close(made.latents[1], z, **CLOSE)
    assert torch.equal(made.latents[1, ..., 8:], made.latents[0, ..., 8:])
    assert (made.latents[1, ..., :8] - made.latents[0, ..., :8]).abs().max() > 1e-2


def test_kv_edit_keeps_the_outside_to_the_last_bit(dual):
    """With the attention over the image alone that 3.5 has, a mask finer than tokens, several targets."""
    fine = tuple(tuple(float(3 <= row < 8 and 2 <= column < 9) for column in range(16)) for row in range(16))
    outside = torch.tensor(fine) == 0
    latents = 0.7 * pw.noise_for(dual, 2).double()
    found = Direct().find(Task(dual, latents, SOURCE, STEPS, 3.0))
    prompts = [SOURCE, TARGET, SOURCE + " at night"]
    for control in (pw.KVEdit(fine), pw.KVEdit(fine, reinitialise=True), pw.KVEdit(fine, blocks=("stream_joint_1",))):
        made = run(dual, prompts, [*found.controls, control], noise=found.noise, inverted=found)
        assert torch.equal(made.latents[0], latents)
        for row in (1, 2):
            assert torch.equal(made.latents[row][..., outside], latents[..., outside])
            assert (made.latents[row] - latents).abs().max() > 1e-3
    same = run(dual, [SOURCE, SOURCE], [pw.KVEdit(fine)])
    torch.testing.assert_close(same.latents[1], same.latents[0], **CLOSE)


def test_kv_edit_of_the_whole_image_from_new_noise_is_plain_generation(model):
    made = run(model, [SOURCE, TARGET], [pw.KVEdit(WHOLE, strength=1.0, reinitialise=True)])
    draws = [torch.Generator().manual_seed(1 + image) for image in range(2)]
    shape = made.latents.shape[2:]
    fresh = torch.stack([[torch.randn(shape, generator=draw) for _ in range(2)][1] for draw in draws]).double()
    plain = run(model, [TARGET], noise=fresh)
    torch.testing.assert_close(made.latents[1], plain.latents[0], **CLOSE)


def test_kv_edit_starts_from_new_noise_at_the_level_that_it_starts_from(model):
    """z + s (n' - n) at the level s of the first step that acts; without a network it is what comes out."""
    noise = pw.noise_for(model, 1).double()
    plain, model.predict = model.predict, lambda z, *x, **o: torch.zeros_like(z)
    try:
        made = run(model, [SOURCE, TARGET], [pw.KVEdit(HALF, strength=0.25, reinitialise=True)], images=1, guidance=1.0)
    finally:
        model.predict = plain
    draw = torch.Generator().manual_seed(1)
    fresh = [torch.randn(noise.shape[1:], generator=draw) for _ in range(2)][1].double()
    level = levels(model, noise)[3][1]
    expected = (noise + level * (fresh - noise))[..., :8]
    torch.testing.assert_close(made.latents[1, ..., :8], expected, **CLOSE)


def test_kv_edit_finds_the_region_of_a_word(flux):
    made = run(flux, [SOURCE, TARGET], [pw.KVEdit(words="cat", threshold=0.97)])
    area = made.reports[0]["edit_area"][0]
    both = run(flux, [SOURCE, TARGET], [pw.KVEdit(HALF, "cat", threshold=0.97)])
    assert 0 < both.reports[0]["edit_area"][0] < area and torch.equal(
        both.latents[0, ..., 8:], both.latents[1, ..., 8:]
    )
    equal = (made.latents[0] == made.latents[1]).all(1).double().mean()
    assert 0 < area < 1 and float(equal) == pytest.approx(1 - area)


@pytest.mark.parametrize(
    ("control", "kept"),
    [
        (pw.UniEdit(), {"joint": 0.0, "maps": False}),
        (pw.DirectEdit(0.5), {"joint": 0.5, "maps": False, "values": True}),
        (pw.KVEdit(HALF, strength=0.6, reinitialise=True), {"joint": 1.0, "maps": False, "values": True}),
    ],
)
def test_recordings_give_the_same(flux, control, kept):
    settings: dict[str, Any] = {"model": flux, "steps": STEPS, "guidance": 3.0, "seed": 4}
    fresh = pw.edit(SOURCE, TARGET, controls=[control], **settings)
    recording = pw.record(SOURCE, **kept, **settings)
    made = pw.edit(recording, TARGET, model=flux, controls=[control])
    torch.testing.assert_close(made.sample.latents, fresh.sample.latents, **CLOSE)
    if kept.get("values"):
        with pytest.raises(NotRecorded, match="Record with values=True"):
            pw.edit(pw.record(SOURCE, joint=1.0, **settings), TARGET, model=flux, controls=[control])


def test_what_they_need(model, tiny):
    def refused(control, message, kind: type[Exception] = ValueError, network=model, prompts=(SOURCE, TARGET)):
        with pytest.raises(kind, match=message):
            run(network, list(prompts), [control], noise=pw.noise_for(network, 0))

    refused(pw.UniEdit(), "this model is a diffusion model", network=tiny)
    refused(pw.DirectEdit(), "this model has none", network=tiny)
    refused(pw.KVEdit(HALF), "this model has none", network=tiny)
    for control in (pw.UniEdit(0.1), pw.DirectEdit(0.1), pw.KVEdit(HALF, strength=0)):
        refused(control, "covers at least one of the 4 steps", NoEffect)
    refused(pw.UniEdit(omega=float("nan")), "omega of UniEdit is a finite number")
    refused(pw.UniEdit(guidance=True), "guidance of UniEdit is a finite number")
    refused(pw.UniEdit(), "needs a target prompt", NoEffect, prompts=(SOURCE,))
    refused(pw.KVEdit(HALF), "needs a target prompt", NoEffect, prompts=(SOURCE,))
    refused(pw.KVEdit(), "Received neither a mask nor a word", NoEffect)
    refused(pw.KVEdit(words="lion"), "'lion' is not a word")
    refused(pw.KVEdit(((0.0,) * 16,) * 16), "Received one that is black", NoEffect)
    recording = pw.record(SOURCE, model=model, steps=STEPS, values=True)
    message = "Record with guidance 1" if model.guided else "this source is a recording. Give a mask"
    with pytest.raises(ValueError, match=message):
        pw.edit(recording, TARGET, model=model, controls=[pw.KVEdit(words="cat")])

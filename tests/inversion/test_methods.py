"""Each inversion against its equations written out, and against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import build_sd3

import promptweave as pw
from promptweave.core.clock import Step
from promptweave.core.control import Hooks
from promptweave.inversion import (
    Direct,
    EditFriendly,
    FireFlow,
    NegativePrompt,
    NullLatent,
    NullText,
    Plain,
    Proximal,
    ReNoise,
    RFInversion,
    RFSolver,
    UniInv,
)
from promptweave.inversion.inverting import CannotInvert, Task
from promptweave.inversion.negative_prompt import slerp
from promptweave.inversion.proximal import prox, widened

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
STEPS = 4
EXACT = {"rtol": 1e-9, "atol": 1e-10}
SINGLE = {"rtol": 1e-5, "atol": 1e-6}  # diffusers keeps the levels of flow models in single precision
TOLERANCE = 0.1


def latents(model, seed: int = 0) -> torch.Tensor:
    return 0.7 * pw.noise_for(model, seed).double()


def task(model, **changes) -> Task:
    return Task(model, **{"latents": latents(model), "prompt": SOURCE, "steps": STEPS, "guidance": 4.0, **changes})


def rows(model, found, prompts=(SOURCE,), guidance=4.0, controls=()):
    """The final latents of a run from an inversion."""
    made = pw.sample(
        model, list(prompts), noise=found.noise, steps=len(found.path) - 1, guidance=guidance,
        controls=[*found.controls, *controls], inverted=found,
    )  # fmt: skip
    return made.latents[:, 0]


def predicting(monkeypatch, model, function):
    """Put a closed form in the network's place."""

    def predict(self, z, t, context, tap=None, **options):
        times = torch.as_tensor(t, dtype=torch.float64).expand(len(z))
        return torch.cat([function(one, float(time)) for one, time in zip(z.split(1), times, strict=True)])

    monkeypatch.setattr(type(model), "predict", predict)


def noise_of(model, z, t, text):
    """The network's prediction, without any of our own code."""
    with torch.set_grad_enabled(text.requires_grad):
        return model.pipeline.unet(z, t, encoder_hidden_states=text.expand(len(z), -1, -1)).sample


def ddim(e, z, a, b):
    return math.sqrt(b / a) * (z - math.sqrt(1 - a) * e) + math.sqrt(1 - b) * e


def levels(model, step: Step) -> tuple[float, float]:
    return model.schedule().level(step.t), model.schedule().level(step.t_next)


def test_negative_prompt_inversion_reproduces_the_same_whatever_the_guidance(tiny64):
    """With the source's text in both halves guidance cancels: DDIM without guidance remains (Miyake et al., eq. 8)."""
    found = NegativePrompt().find(task(tiny64))
    plain = rows(tiny64, Plain().find(task(tiny64)), guidance=1)
    for guidance in (1.5, 4.0, 15.0):
        torch.testing.assert_close(rows(tiny64, found, guidance=guidance), plain, **EXACT)
    text, z = tiny64.encode([SOURCE, TARGET], ["", ""]).cond, found.noise
    for step in task(tiny64).steps_of_run:  # a target, written out
        e_s, e_t = (noise_of(tiny64, z, step.t, text[row : row + 1]) for row in (0, 1))
        z = ddim(e_s + 4.0 * (e_t - e_s), z, *levels(tiny64, step))
    torch.testing.assert_close(rows(tiny64, found, (SOURCE, TARGET))[1], z[0], **EXACT)
    pinned = NegativePrompt(pin=True).find(task(tiny64))
    assert torch.equal(rows(tiny64, pinned, (SOURCE, TARGET))[0], latents(tiny64)[0])
    with pytest.raises(CannotInvert, match="takes the place of the negative prompt"):
        NegativePrompt().find(task(tiny64, negative="a lion"))
    half = NegativePrompt(null=0.5).find(task(tiny64, negative="a lion"))
    texts = tiny64.encode([SOURCE], ["a lion"])
    torch.testing.assert_close(half.more["uncond"], slerp(texts.cond, texts.uncond, 0.5))
    assert half.more["uncond"].norm() == pytest.approx(float(texts.cond.norm()), rel=0.2)


def test_null_texts_are_those_of_the_published_loop(tiny64):
    """Mokady et al., algorithm 1, with an Adam of its own in each step."""
    options = NullText(rounds=3, tolerance=TOLERANCE, rate=0.05)
    found = options.find(task(tiny64))
    path = Direct().find(task(tiny64)).path
    encoded = tiny64.encode([SOURCE], [""])
    u, z, spent = encoded.uncond, path[0], 0
    for step in task(tiny64).steps_of_run:
        cond = noise_of(tiny64, z, step.t, encoded.cond)
        u = u.detach().clone().requires_grad_()
        first, second = torch.zeros_like(u), torch.zeros_like(u)
        for count in range(1, 4):
            e = noise_of(tiny64, z, step.t, u)
            loss = (ddim(e + 4.0 * (cond - e), z, *levels(tiny64, step)) - path[step.index + 1]).square().mean()
            (slope,) = torch.autograd.grad(loss, u)
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            rate = 0.05 * (1 - step.index / (2 * STEPS))
            moved = rate * (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
            u = (u - moved).detach().requires_grad_()
            spent += 1
            if loss < TOLERANCE * (1 + 2 * step.index):
                break
        torch.testing.assert_close(found.more["uncond"][step.index], u.detach()[0], rtol=1e-6, atol=1e-8)
        e = noise_of(tiny64, z, step.t, u.detach())
        z = ddim(e + 4.0 * (cond - e), z, *levels(tiny64, step)).detach()
    assert found.figures["rounds"] == spent and STEPS < spent < 3 * STEPS
    torch.testing.assert_close(rows(tiny64, found), z, rtol=1e-6, atol=1e-7)
    short = task(tiny64, steps=1)
    checkpointed = replace(options, checkpointing=True).find(short)
    torch.testing.assert_close(checkpointed.more["uncond"], options.find(short).more["uncond"], **EXACT)
    assert not tiny64.network.is_gradient_checkpointing


def test_more_rounds_of_null_text_come_closer_and_guidance_is_needed(tiny64):
    errors = []
    for rounds in (0, 1, 3):
        found = NullText(rounds=rounds, tolerance=0, rate=0.05).find(task(tiny64))
        errors.append(float((rows(tiny64, found) - latents(tiny64)).norm()))
    assert errors[2] < errors[1] < errors[0]
    with pytest.raises(pw.NoEffect, match="guidance 1 changes nothing"):
        NullText().find(task(tiny64, guidance=1))
    alone = NullText(rounds=1, source_only=True).find(task(tiny64))
    everywhere = NullText(rounds=1).find(task(tiny64))
    one, all_rows = rows(tiny64, alone, (SOURCE, TARGET)), rows(tiny64, everywhere, (SOURCE, TARGET))
    assert torch.equal(one[0], all_rows[0]) and not torch.allclose(one[1], all_rows[1])


def test_null_latents_are_the_source_of_null_text_and_leave_the_targets_alone(tiny64):
    options = {"rounds": 1, "rate": 0.05}
    offset, text = NullLatent(**options).find(task(tiny64)), NullText(**options).find(task(tiny64))
    made = rows(tiny64, offset, (SOURCE, TARGET))
    torch.testing.assert_close(made[0], rows(tiny64, text)[0], rtol=1e-7, atol=1e-8)
    plain = rows(tiny64, Plain().find(task(tiny64)), (SOURCE, TARGET))
    torch.testing.assert_close(made[1], plain[1], **EXACT)


def test_proximal_steps_in_closed_form():
    d = torch.tensor([-4.0, -3, -1, 0, 1, 2, 3, 5], dtype=torch.float64).view(1, 1, 1, 2, 4)
    limit = float(np.quantile(np.abs(d.flatten().numpy()), 0.5))  # 2.5
    hard, soft = prox(d, 0.5, "l0").flatten().tolist(), prox(d, 0.5, "l1").flatten().tolist()
    assert hard == [-4, -3, 0, 0, 0, 0, 3, 5]
    assert soft == pytest.approx([-4 + limit, -3 + limit, 0, 0, 0, 0, 3 - limit, 5 - limit])
    assert prox(d, 0.5, "l0", compat=True).flatten().tolist() == pytest.approx(soft)
    # published l1: d below -l becomes d + 2l, from 2l on it is d - 2l, and between l and 2l it is d - l
    assert prox(d, 0.5, "l1", compat=True).flatten().tolist() == pytest.approx(
        [-4 + 2 * limit, -3 + 2 * limit, 0, 0, 0, 0, 3 - limit, 0]
    )
    assert prox(d, 0.2, "l1", compat=True).flatten().tolist() == pytest.approx([-2, -1, 0, 0, 0, 0, 1, 3])  # l is 1
    assert torch.equal(prox(d, 0, "l1"), d)
    two = torch.cat([d, 10 * d])  # rows have limits of their own, but as published one together
    assert torch.equal(prox(two, 0.5, "l0")[1], 10 * prox(d, 0.5, "l0")[0])
    assert not torch.equal(prox(two, 0.5, "l0", compat=True)[0], prox(d, 0.5, "l0", compat=True)[0])
    spot = torch.zeros(1, 1, 1, 5, 5)
    spot[..., 2, 2] = 1
    assert widened(spot, 1).sum() == 9 and widened(spot, 0).sum() == 1


def test_proximal_guidance_written_out(tiny64):
    options = Proximal(quantile=0.6, norm="l1", follow=0.3, reconstruction=0.2, below=500, dilate=0)
    found = options.find(task(tiny64))
    text, z = tiny64.encode([SOURCE, TARGET], ["", ""]).cond, found.noise
    for step in task(tiny64).steps_of_run:
        a, b = levels(tiny64, step)
        e_s, e_t = (noise_of(tiny64, z, step.t, text[row : row + 1]) for row in (0, 1))
        d = e_t - e_s
        limit = torch.quantile(d.abs().flatten(), 0.6)
        kept = d.sign() * (d.abs() - limit).clamp(min=0)
        outside, e = (kept == 0).double(), e_s + 4.0 * kept
        clean = (z - math.sqrt(1 - a) * e) / math.sqrt(a)
        clean = clean - (0.2 if step.t < 500 else 0) * (clean - found.path[-1]) * outside
        z = math.sqrt(b) * clean + math.sqrt(1 - b) * e
        z = z - 0.3 * outside * (z - found.path[step.index + 1])
    torch.testing.assert_close(rows(tiny64, found, (SOURCE, TARGET))[1], z[0], **EXACT)


def test_published_proximal_guidance_written_out(tiny64):
    """Its mask is where the shrunk difference exceeds the threshold, which is that of both rows together."""
    options = Proximal(quantile=0.6, norm="l1", follow=0.3, reconstruction=0.2, below=500, reference_compat=True)
    found = options.find(task(tiny64))
    text, z = tiny64.encode([SOURCE, TARGET], ["", ""]).cond, found.noise.expand(2, -1, -1, -1)
    for step in task(tiny64).steps_of_run:
        a, b = levels(tiny64, step)
        e_s, e_t = (torch.cat([noise_of(tiny64, z[i : i + 1], step.t, x[i : i + 1]) for i in (0, 1)])
                    for x in (text[:1].expand(2, -1, -1), text))  # fmt: skip
        d = e_t - e_s
        limit = float(torch.quantile(d.abs().flatten(), 0.6))
        kept = d - d.clamp(-limit, limit)
        kept = torch.where(kept > 0, kept - limit, kept)
        kept = torch.where(kept < 0, kept + limit, kept)
        e = e_s + 4.0 * kept
        outside = 1 - torch.nn.functional.max_pool2d((kept.abs() > limit).double(), 3, 1, 1)
        clean = (z - math.sqrt(1 - a) * e) / math.sqrt(a)
        clean = clean - (0.2 if step.t < 500 else 0) * (clean - found.path[-1]) * outside
        z = math.sqrt(b) * clean + math.sqrt(1 - b) * e
        z = z - 0.3 * outside * (z - found.path[step.index + 1])
    torch.testing.assert_close(rows(tiny64, found, (SOURCE, TARGET)), z, **EXACT)


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_edit_friendly_noise_written_out_and_exact(tiny64, eta):
    options = EditFriendly(skip=0.5, eta=eta)
    found = options.find(task(tiny64, seed=7))
    assert found.figures["skipped steps"] == 2
    steps, z0 = task(tiny64).steps_of_run, latents(tiny64)
    generator = torch.Generator().manual_seed(7)
    path = []
    for step in steps:
        a, _ = levels(tiny64, step)
        draw = torch.randn(z0.shape, generator=generator).double()
        path.append(math.sqrt(a) * z0 + math.sqrt(1 - a) * draw)
    path.append(z0)
    text, edited = tiny64.encode([SOURCE, TARGET], ["", ""]), path[2]
    for step in steps[2:]:
        a, b = levels(tiny64, step)
        variance = eta**2 * (1 - b) / (1 - a) * (1 - a / b)

        def mean(e, x, a=a, b=b, variance=variance):
            return math.sqrt(b / a) * (x - math.sqrt(1 - a) * e) + math.sqrt(max(1 - b - variance, 0)) * e

        noise = path[step.index + 1] - mean(noise_of(tiny64, path[step.index], step.t, text.cond[:1]), path[step.index])
        torch.testing.assert_close(found.more["noises"][step.index], noise, rtol=1e-6, atol=1e-7)
        e_u, e_t = (noise_of(tiny64, edited, step.t, side[1:]) for side in (text.uncond, text.cond))
        edited = mean(e_u + 4.0 * (e_t - e_u), edited) + noise
    made = rows(tiny64, found, (SOURCE, TARGET))
    torch.testing.assert_close(made[0], z0[0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(made[1], edited[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(CannotInvert, match="at least one of the 4 steps"):
        EditFriendly(skip=1.0).find(task(tiny64))


def test_renoise_is_exact_for_constant_noise_and_converges(tiny64, monkeypatch):
    constant = torch.randn(4, 16, 16, dtype=torch.float64)
    predicting(monkeypatch, tiny64, lambda z, t: constant.expand_as(z))
    assert torch.equal(
        ReNoise(rounds=3).find(task(tiny64)).noise, ReNoise(rounds=0, average=1).find(task(tiny64)).noise
    )
    torch.testing.assert_close(rows(tiny64, ReNoise().find(task(tiny64)))[0], latents(tiny64)[0], **EXACT)
    predicting(monkeypatch, tiny64, lambda z, t: 0.5 * z)
    errors = []
    for rounds in (0, 1, 2, 3):
        found = ReNoise(rounds=rounds, average=1, early=0).find(task(tiny64))
        errors.append(float((rows(tiny64, found) - latents(tiny64)).norm()))
    assert all(later < 0.5 * earlier for earlier, later in zip(errors, errors[1:], strict=False))
    with pytest.raises(CannotInvert, match="averages at most"):
        ReNoise(rounds=0, average=2).find(task(tiny64))


def test_renoise_written_out(tiny64):
    """Two rounds, the last two of three predictions averaged; below 250 the average of all of half the rounds."""
    found, z = ReNoise(rounds=2, average=2).find(task(tiny64)), latents(tiny64)
    text = tiny64.encode([SOURCE], [""]).cond
    for step in reversed(task(tiny64).steps_of_run):
        a, b = levels(tiny64, step)
        y, seen = z, []
        for _ in range(1 if step.t < 250 else 3):
            seen.append(noise_of(tiny64, y, step.t, text))
            y = ddim(seen[-1], z, b, a)
        e = seen[0] if step.t < 250 else (seen[1] + seen[2]) / 2
        z = ddim(e, z, b, a)
        torch.testing.assert_close(found.path[step.index], z, **EXACT)


@pytest.fixture(scope="module")
def flow(tokenizer):
    return pw.load(build_sd3(tokenizer).to(torch.float64))


FLOWS = [RFSolver(), FireFlow(), UniInv(), ReNoise()]


@pytest.mark.parametrize("inversion", FLOWS, ids=lambda one: one.name)
def test_a_constant_velocity_is_exact_there_and_back(flow, monkeypatch, inversion):
    constant = torch.randn(flow.channels, *latents(flow).shape[-2:], dtype=torch.float64)
    predicting(monkeypatch, flow, lambda z, t: constant.expand_as(z))
    found = inversion.find(task(flow))
    torch.testing.assert_close(found.noise, latents(flow) + constant, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rows(flow, found)[0], latents(flow)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inversion", FLOWS[:3], ids=lambda one: one.name)
def test_second_order_round_trips(flow, monkeypatch, inversion):
    """dx / ds = x cos(3 s): the error of a round trip falls by about 4 or more as steps double; Euler's halves."""
    predicting(monkeypatch, flow, lambda z, t: z * math.cos(3 * t / 1000))
    errors = {}
    for method in (inversion, Plain()):
        for steps in (16, 32):
            found = method.find(task(flow, steps=steps))
            errors[method.name, steps] = float((rows(flow, found) - latents(flow)).norm())
    assert errors[inversion.name, 32] < errors[inversion.name, 16] / 3.5
    assert errors["ddim", 32] > errors["ddim", 16] / 2.5
    assert errors[inversion.name, 32] < errors["ddim", 32] / 5


@pytest.mark.parametrize(("inversion", "there", "back"), [(RFSolver(), 8, 8), (FireFlow(), 5, 5), (UniInv(), 5, 4)])
def test_network_calls_of_flow_inversions(flow, monkeypatch, inversion, there, back):
    calls = []
    original = type(flow).predict

    def predict(self, z, t, *arguments, **options):
        calls.append(t)
        return original(self, z, t, *arguments, **options)

    monkeypatch.setattr(type(flow), "predict", predict)
    found = inversion.find(task(flow))
    assert len(calls) == there
    rows(flow, found)
    assert len(calls) == there + back


def test_the_midpoint_rule_written_out(flow):
    found, z = RFSolver().find(task(flow)), latents(flow)
    text = flow.encode([SOURCE], [""])

    def velocity(x, t):
        return flow.predict(x, t, text.cond, pooled=text.pooled)

    for step in reversed(task(flow).steps_of_run):
        s, t = max(step.t_next, 0.0), step.t
        h = (t - s) / 1000
        v = velocity(z, s)
        m = velocity(z + h / 2 * v, (s + t) / 2)
        z = z + h * v + h**2 / 2 * (m - v) / (h / 2)  # as published, eq. 9
        torch.testing.assert_close(found.path[step.index], z, **EXACT)


def test_values_of_the_source_are_injected_in_the_first_steps(flow):
    made = {n: rows(flow, RFSolver(inject=n).find(task(flow)), (SOURCE, TARGET)) for n in (0, 1, STEPS)}
    torch.testing.assert_close(made[0][0], made[STEPS][0], **EXACT)
    assert not torch.allclose(made[0][1], made[1][1]) and not torch.allclose(made[1][1], made[STEPS][1])
    late, seen = [site.name for site in flow.sites((16, 16)) if site.kind == "joint"][-1], dict[int, bool]()

    class Seeing(Hooks):
        def observe(self, step, site, rows):
            if site.name == late:
                own, source = (site.of_image(rows["cond"][row].v) for row in (1, 0))
                seen[step.index] = torch.equal(own, source)

    class Watching(pw.Control):
        def bind(self, run):
            return Seeing()

    rows(flow, RFSolver(inject=2).find(task(flow)), (SOURCE, TARGET), controls=[Watching()])
    assert seen == {0: True, 1: True, 2: False, 3: False}
    same = rows(flow, RFSolver(inject=STEPS).find(task(flow)), (SOURCE, SOURCE))
    torch.testing.assert_close(same[1], same[0], **EXACT)


def test_rf_inversion_reaches_both_ends(flow):
    """gamma 1 ends in the noise, eta 1 in all steps ends in the image, eta 0 is plain sampling."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(latents(flow).shape, generator=generator).double()
    found = RFInversion(gamma=1.0, eta=1.0, stop=1.0).find(task(flow, seed=3))
    torch.testing.assert_close(found.noise, noise, rtol=1e-6, atol=1e-6)
    for row in rows(flow, found, (SOURCE, TARGET)):
        torch.testing.assert_close(row, latents(flow)[0], rtol=1e-6, atol=1e-6)
    plain = RFInversion(eta=0.0).find(task(flow))
    again = pw.sample(flow, [TARGET], noise=plain.noise, steps=STEPS, guidance=4.0).latents[0, 0]
    torch.testing.assert_close(rows(flow, plain, (SOURCE, TARGET))[1], again, **EXACT)
    half = RFInversion(eta=0.5, stop=0.5).find(task(flow))
    z, text = half.noise, flow.encode([SOURCE], [""])
    for step in task(flow).steps_of_run:
        sides = [
            flow.predict(z, step.t, c, pooled=p)
            for c, p in ((text.uncond, text.uncond_pooled), (text.cond, text.pooled))
        ]
        v = sides[0] + 4.0 * (sides[1] - sides[0])
        if step.index < STEPS // 2:
            v = v + 0.5 * ((z - latents(flow)) / (step.t / 1000) - v)
        z = z + (max(step.t_next, 0.0) - step.t) / 1000 * v
    torch.testing.assert_close(rows(flow, half)[0], z[0], **SINGLE)


def test_the_wrong_kind_of_model_is_told_which_inversions_it_has(tiny64, flow):
    with pytest.raises(CannotInvert, match="for flow models.*direct, ddim"):
        RFSolver().find(task(tiny64))
    with pytest.raises(CannotInvert, match="is a flow model.*rf-solver"):
        EditFriendly().find(task(flow))

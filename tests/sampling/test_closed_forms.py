"""Single steps against diffusers and against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler
from references import scaled_linear

from promptweave.core.schedule import Schedule
from promptweave.sampling.steps import clean_and_noise, ddim_step, guide

STEPS = 50


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("final_to_one", [True, False])
def test_a_step_is_that_of_diffusers_bit_for_bit(prediction, final_to_one):
    theirs = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=prediction,
        set_alpha_to_one=final_to_one,
    )
    theirs.set_timesteps(STEPS)
    table = theirs.alphas_cumprod.double()
    schedule = Schedule(table, prediction, final=float(theirs.final_alpha_cumprod))
    for step in schedule.steps(STEPS):
        z, output = draw(2, 4, 3, 5, seed=step.t).float(), draw(2, 4, 3, 5, seed=step.t + 1).float()
        ours = ddim_step(output, z, schedule.level(step.t), schedule.level(step.t_next), prediction)
        assert torch.equal(ours, theirs.step(output, step.t, z).prev_sample), step


def run(predict, z, *, invert: bool = False) -> torch.Tensor:
    """All steps of a run with a fake network, down to the clean end, or back up."""
    schedule = Schedule(scaled_linear(), offset=1, final=float(scaled_linear()[0]))
    levels = [schedule.level(t) for s in schedule.steps(STEPS) for t in (s.t, s.t_next)]
    pairs = list(zip(levels[::2], levels[1::2], strict=True))
    for a, b in [(b, a) for a, b in reversed(pairs)] if invert else pairs:
        z = ddim_step(predict(z, a), z, a, b)
    return z


def test_the_best_predictor_of_pure_noise_shrinks_by_cosines():
    """For data N(0, 1) e(x, t) = sqrt(1 - a) x: a step multiplies by cos(theta - theta'), cos(theta) = sqrt(a)."""
    schedule, table, z = (
        Schedule(scaled_linear(), offset=1, final=float(scaled_linear()[0])),
        scaled_linear(),
        draw(3, 5),
    )
    angles = [math.acos(float(table[max(0, t)]) ** 0.5) for s in schedule.steps(STEPS) for t in (s.t, s.t_next)]
    factor = math.prod(math.cos(one - two) for one, two in zip(angles[::2], angles[1::2], strict=True))
    torch.testing.assert_close(run(lambda x, a: (1 - a) ** 0.5 * x, z), factor * z, rtol=1e-11, atol=0)
    assert factor < 0.999


def test_inversion_of_a_constant_predictor_is_exact():
    z, constant = draw(3, 5), draw(3, 5, seed=1)
    noisy = run(lambda x, a: constant, z, invert=True)
    assert (noisy - z).abs().max() > 0.1
    torch.testing.assert_close(run(lambda x, a: constant, noisy), z, rtol=1e-11, atol=1e-12)


def test_without_offset_the_last_step_does_nothing():
    schedule = Schedule(scaled_linear(), final=float(scaled_linear()[0]))
    step = schedule.steps(STEPS)[-1]
    z = draw(3, 5)
    got = ddim_step(draw(3, 5, seed=1), z, schedule.level(step.t), schedule.level(step.t_next))
    torch.testing.assert_close(got, z, rtol=1e-13, atol=1e-14)


def test_three_predictions_of_the_same_thing():
    clean, noise, a = draw(3, 5), draw(3, 5, seed=1), 0.3
    z = a**0.5 * clean + (1 - a) ** 0.5 * noise
    velocity = a**0.5 * noise - (1 - a) ** 0.5 * clean
    for prediction, output in (("epsilon", noise), ("v_prediction", velocity), ("sample", clean)):
        got = clean_and_noise(output, z, a, prediction)
        torch.testing.assert_close(got[0], clean, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(got[1], noise, rtol=1e-13, atol=1e-14)


def test_guidance_by_one_is_the_condition_and_by_zero_is_none():
    uncond, cond = draw(3, 5), draw(3, 5, seed=1)
    torch.testing.assert_close(guide(uncond, cond, 1.0), cond)
    torch.testing.assert_close(guide(uncond, cond, 0.0), uncond)
    torch.testing.assert_close(guide(uncond, cond, 7.5), -6.5 * uncond + 7.5 * cond)

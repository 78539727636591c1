"""Every scheduler walks our loop as it walks diffusers' own, and a step is a step however many calls it makes."""

from __future__ import annotations

import diffusers
import pytest
import torch
from tiny import build_tiny

from promptweave import Control, Hooks, Replace, load, noise_for, sample
from promptweave.models.solvers import NAMES, SchedulerSolver, UnknownScheduler, scheduler_name, with_scheduler

PROMPT, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
STEPS = 6
DIFFUSION = [name for name in NAMES if name != "flow-euler"]
CALLS = {"heun": [2] * (STEPS - 1) + [1], "pndm": [2] + [1] * (STEPS - 1)}
NOISY = ("euler-ancestral", "lcm", "ddpm")


@pytest.fixture(scope="module")
def pipeline(tokenizer):
    made = build_tiny(tokenizer)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("name", DIFFUSION)
def test_plain_runs_equal_those_of_diffusers(pipeline, name):
    model = load(pipeline, scheduler=name)
    ours = sample(model, [PROMPT], noise=noise_for(model, 9), steps=STEPS, guidance=3.0, seed=9).latents[0]
    own, pipeline.scheduler = pipeline.scheduler, model.sampler
    wanted = pipeline(
        PROMPT, num_inference_steps=STEPS, guidance_scale=3.0, output_type="latent",
        generator=torch.Generator().manual_seed(9),
    ).images  # fmt: skip
    pipeline.scheduler = own
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", DIFFUSION)
def test_a_step_is_a_step_of_the_schedule(pipeline, name):
    class Count(Control):
        def bind(self, run):
            return _Count()

    class _Count(Hooks):
        def __init__(self):
            self.calls: dict[int, int] = {}
            self.ends: list[int] = []

        def attention(self, step, site, rows):
            if site.index == 0:
                self.calls[step.index] = self.calls.get(step.index, 0) + 1
            return rows

        def after_step(self, step, z):
            self.ends.append(step.index)
            return z

    model = load(pipeline, scheduler=name)
    made = sample(model, [PROMPT], noise=noise_for(model, 0), steps=STEPS, guidance=1.0, controls=[Count()]).hooks[0]
    assert isinstance(made, _Count)
    assert made.ends == list(range(STEPS))
    assert list(made.calls.values()) == CALLS.get(name, [1] * STEPS)


@pytest.mark.parametrize("name", DIFFUSION)
def test_edits_under_every_solver(pipeline, name):
    model = load(pipeline, scheduler=name)
    settings = {"noise": noise_for(model, 0, 2), "steps": STEPS, "guidance": 3.0}
    alone = sample(model, [PROMPT], **settings).latents[0]
    made = sample(model, [PROMPT, PROMPT, TARGET], controls=[Replace()], **settings).latents
    torch.testing.assert_close(made[0], alone, rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(made[1], made[0], rtol=2e-4, atol=2e-4)  # the noise added on the way is shared
    assert (made[2] - made[0]).abs().max() > 1e-2


@pytest.mark.parametrize("name", NOISY)
def test_images_of_a_noisy_solver_are_those_of_their_own_seeds(pipeline, name):
    model = load(pipeline, scheduler=name)
    both = sample(model, [PROMPT], noise=noise_for(model, 4, 2), steps=STEPS, seed=4).latents[0]
    second = sample(model, [PROMPT], noise=noise_for(model, 5), steps=STEPS, seed=5).latents[0, 0]
    torch.testing.assert_close(both[1], second, rtol=1e-4, atol=1e-4)
    other = sample(model, [PROMPT], noise=noise_for(model, 5), steps=STEPS, seed=6).latents[0, 0]
    assert (other - second).abs().max() > 1e-2


def test_pndm_with_its_runge_kutta_start(pipeline):
    scheduler = diffusers.PNDMScheduler.from_config(pipeline.scheduler.config, skip_prk_steps=False)
    solver = SchedulerSolver(scheduler, 8, (1, 4, 4, 4), 1, 0, torch.device("cpu"))
    assert [len(solver.calls(step)) for step in solver.steps] == [4, 4, 4, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("count", [0, -1, 1001, True])
def test_impossible_numbers_of_steps(pipeline, count):
    model = load(pipeline, scheduler="euler")
    wrong, message = (TypeError, "whole number as steps") if count is True else (ValueError, "number from 1 to 1000")
    with pytest.raises(wrong, match=message):
        sample(model, [PROMPT], noise=noise_for(model, 0), steps=count)


def test_unknown_schedulers_and_those_of_the_other_kind(pipeline):
    with pytest.raises(UnknownScheduler, match="no scheduler 'fast'.*ddim"):
        load(pipeline, scheduler="fast")
    with pytest.raises(UnknownScheduler, match="Flow models"):
        load(pipeline, scheduler="flow-euler")
    with pytest.raises(UnknownScheduler, match="Flow models"):
        with_scheduler(diffusers.FlowMatchEulerDiscreteScheduler(), "ddim")
    with pytest.raises(UnknownScheduler, match="ScoreSdeVeScheduler"):
        scheduler_name(diffusers.ScoreSdeVeScheduler())


def test_a_ready_pipeline_keeps_its_scheduler(pipeline):
    before = pipeline.scheduler
    assert load(pipeline, scheduler="heun").scheduler == "heun"
    assert pipeline.scheduler is before

"""Blended latents: the equations a second time, RePaint's order, and what must not move."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from families import build_flux, build_sd3
from tiny import build_tiny

import promptweave as pw
from promptweave.core.control import FirstPass, NoEffect
from promptweave.methods.inpaint import jumps
from promptweave.models.solvers import with_scheduler
from promptweave.sampling.loop import Job, sample_jobs
from promptweave.sampling.steps import ddim_step

PROMPT = "a photo of a cat riding a bike in the snow"
OTHER = "a photo of a dog riding a bike in the snow"
STEPS = 4
MASK = ((0.0,) * 16,) * 6 + ((0.0,) * 4 + (1.0,) * 8 + (0.0,) * 4,) * 10
INSIDE = torch.tensor(MASK) > 0.5


def clean(model: Any, seed: int = 7) -> torch.Tensor:
    return pw.noise_for(model, seed).to(model.dtype) * 0.7


def run(model: Any, *controls: Any, steps: int = STEPS, **options: Any) -> Any:
    noise = pw.noise_for(model, 1).to(model.dtype)
    job = Job(
        [PROMPT, OTHER], noise, steps, 3.0, controls, seed=1, first_pass=FirstPass(clean(model)), **options
    )  # fmt: skip
    return sample_jobs(model, [job])[0]


def order_of_the_paper(t_T: int, jump_length: int, jump_n_sample: int) -> list[int]:
    """RePaint's get_schedule_jump as its appendix states it, in numbers of steps that are left."""
    left = {j: jump_n_sample - 1 for j in range(0, t_T - jump_length, jump_length)}
    t, visited = t_T, list[int]()
    while t >= 1:
        t -= 1
        visited.append(t)
        if left.get(t, 0) > 0:
            left[t] -= 1
            for _ in range(jump_length):
                t += 1
                visited.append(t)
    return visited


@pytest.mark.parametrize(("steps", "jump", "times"), [(6, 2, 3), (7, 3, 2), (5, 1, 2), (4, 10, 5)])
def test_the_order_of_resampling_is_repaint_s(steps, jump, times):
    states = [steps, *order_of_the_paper(steps, jump, times)]
    downs = [steps - before for before, after in zip(states, states[1:], strict=False) if after < before]
    assert jumps(steps, jump, times) == downs


def test_ddim_with_resampling_equals_the_equations(tiny64):
    """Alternate denoising, blending and forward noising, written out in double precision."""
    model, x = tiny64, clean(tiny64)
    made = run(model, pw.Inpaint(MASK, resamplings=2, jump=2, fresh=False))
    noise = pw.noise_for(model, 1).double()
    schedule, text = model.schedule(), model.encode([PROMPT, OTHER], ["", ""])
    generator = torch.Generator().manual_seed(1)
    torch.randn(noise.shape[1:], generator=generator)  # the starting noise
    z, last = noise, None
    steps = schedule.steps(STEPS)
    order = jumps(STEPS, 2, 2)
    for index in order:
        step = steps[index]
        level, after = schedule.level(step.t), schedule.level(step.t_next)
        if last is not None and index < last:
            before = schedule.level(steps[last].t) if last < STEPS else 1.0
            kept = level / before
            drawn = torch.randn(noise.shape[1:], generator=generator).double()[None]
            z = kept**0.5 * z + (1 - kept) ** 0.5 * drawn
        halves = torch.cat([text.uncond[1:], text.cond[1:]])
        uncond, cond = model.predict(torch.cat([z, z]), step.t, halves).split(1)
        z = ddim_step(uncond + 3.0 * (cond - uncond), z, level, after, schedule.prediction)
        following = schedule.level(steps[index + 1].t) if index + 1 < STEPS else 1.0
        around = following**0.5 * x + (1 - following) ** 0.5 * noise
        z, last = torch.where(INSIDE, z, around), index + 1
    torch.testing.assert_close(made.latents[1], z, rtol=1e-6, atol=1e-6)
    assert made.reports[0]["latent_steps"] == len(order) > STEPS


def test_flow_with_strength_equals_the_equations(tokenizer):
    """z + (s' - s) v between levels of (1 - s) x + s n, from the noised image on, in double precision."""
    pipeline = build_sd3(tokenizer)
    model = pw.load(pipeline.to(torch.float64))
    x, noise = clean(model), pw.noise_for(model, 1).double()
    made = run(model, pw.Inpaint(MASK, strength=0.5))
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(STEPS)
    levels = [float(sigma) for sigma in scheduler.sigmas]
    text = model.encode([PROMPT, OTHER], ["", ""])
    z = (1 - levels[2]) * x + levels[2] * noise
    for index in (2, 3):
        halves, pooled = (
            torch.cat([text.uncond[1:], text.cond[1:]]),
            torch.cat([text.uncond_pooled[1:], text.pooled[1:]]),
        )
        output = model.predict(torch.cat([z, z]), levels[index] * 1000, halves, pooled=pooled)
        velocity = output[:1] + 3.0 * (output[1:] - output[:1])
        z = z + (levels[index + 1] - levels[index]) * velocity
        z = torch.where(INSIDE, z, (1 - levels[index + 1]) * x + levels[index + 1] * noise)
    torch.testing.assert_close(made.latents[1], z, rtol=1e-4, atol=1e-4)  # its sigmas are in single precision


FAMILIES = {"ddim": build_tiny, "flux": build_flux, "euler": build_tiny, "heun": build_tiny}


@pytest.mark.parametrize("family", FAMILIES)
def test_latents_outside_are_the_image_s_and_inside_is_new(family, tokenizer):
    pipeline = FAMILIES[family](tokenizer)
    if family not in ("ddim", "flux"):
        pipeline.scheduler = with_scheduler(pipeline.scheduler, family)
    model = pw.load(pipeline)
    made = run(model, pw.Inpaint(MASK), pw.Replace(cross=1.0, joint=1.0))
    assert torch.equal(made.latents[0], clean(model))
    assert torch.equal(made.latents[1][..., ~INSIDE], clean(model)[..., ~INSIDE])
    assert (made.latents[1] - clean(model))[..., INSIDE].abs().mean() > 0.1
    if family in ("ddim", "euler", "flux"):
        again = run(model, pw.Inpaint(MASK, resamplings=2, jump=1))
        assert torch.equal(again.latents[1][..., ~INSIDE], clean(model)[..., ~INSIDE])
        assert not torch.equal(again.latents[1], made.latents[1])
    else:
        with pytest.raises(ValueError, match="remembers what it predicted.*resamplings=2.*--scheduler ddim"):
            run(model, pw.Inpaint(MASK, resamplings=2, jump=1))


def test_a_solver_that_went_back_gives_what_it_gave_before(tokenizer):
    """Euler finds its place by the time, not by counting calls."""
    pipeline = build_tiny(tokenizer)
    pipeline.scheduler = with_scheduler(pipeline.scheduler, "euler")
    model = pw.load(pipeline)
    solver = model.solver(STEPS, (1, 4, 16, 16), 1, 0)
    assert solver is not None
    output = torch.ones(1, 4, 16, 16)

    def advanced(index: int) -> torch.Tensor:
        (t,) = solver.calls(solver.steps[index])
        solver.scale(output, t)
        return solver.advance(output, output, t)

    first = [advanced(index) for index in (0, 1, 2)]
    again = [advanced(index) for index in (1, 2, 3)]
    assert torch.equal(first[1], again[0]) and torch.equal(first[2], again[1])


def test_what_is_refused(tiny):
    for control, error, message in (
        (pw.Inpaint(), NoEffect, "Received no mask. Give mask="),
        (pw.Inpaint(((0.0,) * 16,) * 16), NoEffect, "Paint white what may change"),
        (pw.Inpaint(MASK, strength=0.1), NoEffect, "covers at least one of the 4 steps"),
        (pw.Inpaint(MASK, resamplings=2), NoEffect, "Choose a smaller jump"),
        (pw.Inpaint(MASK, resamplings=0), ValueError, "resamplings of Inpaint is a whole number"),
        (pw.Inpaint(MASK, blended=False), NoEffect, "reads no mask, so latents must be blended"),
        (pw.Inpaint(MASK, targets=(2,)), ValueError, "targets must name rows"),
    ):
        with pytest.raises(error, match=message):
            run(tiny, control)


def picture(size: tuple[int, int] = (32, 32)) -> np.ndarray:
    values = torch.rand(*size, 3, generator=torch.Generator().manual_seed(1)).numpy()
    return (values * 255).astype(np.uint8)


def test_inpaint_computes_the_target_alone_and_replays(tiny, tmp_path):
    """The given image stands for the source: one row is computed, and the picture is saved with its recipe."""
    seen: list[tuple[int, ...]] = []
    predict = type(tiny).predict

    def watched(self: Any, z: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        seen.append(tuple(z.shape))
        return predict(self, z, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tiny), "predict", watched)
        made = pw.inpaint(picture(), OTHER, mask=np.array(MASK), model=tiny, steps=2, resamplings=2, jump=1)
    assert {shape[0] for shape in seen} == {2} and len(seen) == 3  # both halves of guidance; 2 steps and one again
    assert np.array_equal(made.sample.pictures[0, 0], picture())
    made.save(tmp_path)
    assert pw.replay(tmp_path / "edit.png", model=tiny).matches
    asked = pw.edit(
        PROMPT, OTHER, model=tiny, steps=2, image=picture(), kind="inpaint", mask=np.array(MASK), resamplings=2, jump=1
    )
    assert np.array_equal(asked.sample.pictures[1], made.sample.pictures[1])
    watched_too = pw.edit(
        PROMPT, OTHER, model=tiny, steps=2, image=picture(), kind="inpaint", mask=np.array(MASK), resamplings=2, jump=1,
        maps=True,
    )  # fmt: skip
    assert np.abs(watched_too.sample.pictures[1].astype(int) - made.sample.pictures[1]).max() <= 1
    with pytest.raises(ValueError, match="Nothing reads cross here"):
        pw.edit(PROMPT, OTHER, model=tiny, steps=2, image=picture(), kind="inpaint", mask=np.array(MASK), cross=0.5)
    with pytest.raises(ValueError, match="Nothing reads jump here"):
        pw.edit(PROMPT, OTHER, model=tiny, steps=2, image=picture(), kind="inpaint", mask=np.array(MASK), jump=2)


def test_every_source_and_every_way_to_ask(tiny):
    """A recording, an inverted image, several images of a generated source, several targets, half precision, sweeps."""
    given: dict[str, Any] = {"model": tiny, "steps": 2}
    asked: dict[str, Any] = {"kind": "inpaint", "mask": np.array(MASK)}
    anew = pw.edit(PROMPT, OTHER, image=picture(), **given, **asked)
    recording = pw.record(PROMPT, image=picture(), **given)
    recorded = pw.edit(recording, OTHER, model=tiny, **asked)
    inverted = pw.edit(pw.invert(PROMPT, picture(), **given), OTHER, model=tiny, **asked)
    for made in (recorded, inverted):
        outside = made.sample.latents[..., ~INSIDE]
        assert torch.equal(outside[1], outside[0])
    assert np.array_equal(inverted.sample.pictures[1], anew.sample.pictures[1])
    several = pw.edit(PROMPT, OTHER, "a lion", images=2, guidance=1, **given, **asked)
    alone = pw.edit(PROMPT, "a lion", seed=1, guidance=1, **given, **asked)
    torch.testing.assert_close(several.sample.latents[2, 1], alone.sample.latents[1, 0], rtol=1e-4, atol=1e-4)
    swept = pw.sweep(
        PROMPT, OTHER, rows=("strength", (0.5, 1.0)), columns=("seed", (0, 1)), image=picture(), **given, **asked
    )
    assert np.array_equal(swept.cells[1][0].sample.pictures, anew.sample.pictures)
    assert len({cell.edited.tobytes() for row in swept.cells for cell in row}) == 4
    half = pw.load(build_tiny(tiny.tokenizer).to(torch.bfloat16))
    made = pw.inpaint(picture(), OTHER, mask=np.array(MASK), model=half, steps=2)
    assert torch.equal(made.sample.latents[1][..., ~INSIDE], made.sample.latents[0][..., ~INSIDE])

"""Models trained down to a signal of zero (Lin et al. 2024): DDIM from pure noise as diffusers makes it, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionPipeline
from tiny import build_tiny

import promptweave as pw
from promptweave.inversion.ddim import invert
from promptweave.models.load import load

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def built(tokenizer, prediction: str = "v_prediction") -> StableDiffusionPipeline:
    pipeline = build_tiny(tokenizer, prediction=prediction)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **ZERO)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 3, 7])
def test_latents_equal_those_of_diffusers_bit_for_bit(prediction, steps, tokenizer):
    model = load(built(tokenizer, prediction))
    noise, prompts = pw.noise_for(model, 0, 2), [SOURCE, TARGET, "a lion"]
    assert model.schedule().alpha_bar[-1] == 0 and model.schedule().steps(steps)[0].t == 999
    ours = pw.sample(model, prompts, noise=noise, steps=steps, guidance=3).latents.flatten(0, 1)
    wanted = model.pipeline(
        prompts, num_images_per_prompt=2, latents=noise.repeat(3, 1, 1, 1), num_inference_steps=steps,
        guidance_scale=3.0, output_type="latent", height=32, width=32,
    ).images  # fmt: skip
    assert torch.equal(ours, wanted)


def test_trailing_times_are_those_of_diffusers_for_any_number_of_steps(tokenizer):
    schedule, theirs = load(built(tokenizer)).schedule(), DDIMScheduler(**ZERO)
    for count in range(1, 1001):
        theirs.set_timesteps(count)
        assert [step.t for step in schedule.steps(count)] == theirs.timesteps.tolist()[:count], count  # a -1 may follow


def test_the_way_to_pure_noise_is_that_of_diffusers(tokenizer):
    model = load(built(tokenizer))
    back = DDIMInverseScheduler.from_config(model.sampler.config)
    z = 0.7 * pw.noise_for(model, 1)
    found = invert(model, z, SOURCE, steps=5)
    text = model.encode([SOURCE], [""])
    at = z
    for step in reversed(model.schedule().steps(5)):
        with torch.no_grad():
            output = model.predict(at, step.t, text.cond)
        a, b = model.schedule().level(step.t_next), model.schedule().level(step.t)
        clean, noise = a**0.5 * at - (1 - a) ** 0.5 * output, a**0.5 * output + (1 - a) ** 0.5 * at
        at = b**0.5 * clean + (1 - b) ** 0.5 * noise
    torch.testing.assert_close(found.noise, at, rtol=1e-4, atol=1e-5)
    assert float(back.alphas_cumprod[-1]) == 0 and found.noise.isfinite().all()


def test_an_own_picture_is_edited(tokenizer):
    model = load(built(tokenizer))
    picture = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    made = pw.edit(SOURCE, TARGET, model=model, image=picture, steps=4, guidance=3)
    latents = model.to_latent(torch.from_numpy(picture)[None] / 255)
    torch.testing.assert_close(made.sample.latents[0], latents, rtol=0, atol=1e-5)  # the source is the picture
    assert not torch.equal(made.sample.latents[1], made.sample.latents[0])


def test_a_network_that_predicts_noise_cannot_begin_at_zero(tokenizer):
    with pytest.raises(ValueError, match="signal of zero.*'v_prediction'"):
        pw.generate(SOURCE, model=load(built(tokenizer, "epsilon")), steps=2)


@pytest.mark.parametrize("key", ["clip_sample", "thresholding"])
def test_a_scheduler_that_clips_names_the_cure_which_works(key, tokenizer):
    pipeline = build_tiny(tokenizer)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **{key: True})
    with pytest.raises(ValueError, match=rf"Received {key}=True\. Load the model with scheduler=.ddim") as caught:
        pw.generate(SOURCE, model=load(pipeline), steps=1)
    assert len(str(caught.value)) < 300
    assert pw.generate(SOURCE, model=load(pipeline, scheduler="ddim"), steps=1).sample.latents.isfinite().all()

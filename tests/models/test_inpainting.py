"""Inpainting checkpoints: loaded from folders by their class, and numerically the pipelines of diffusers."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from families import build_flux_fill, build_inpainting, build_inpainting_xl
from PIL import Image
from safetensors.torch import save_file

import promptweave as pw
from promptweave.models.load import ModelError, load
from promptweave.models.single_file import pipeline_class

PROMPT = "a photo of a cat riding a bike in the snow"
BUILDERS = {
    "Stable Diffusion": build_inpainting, "Stable Diffusion XL": build_inpainting_xl, "FLUX.1 Fill": build_flux_fill,
}  # fmt: skip


def picture(size: tuple[int, int] = (32, 32)) -> Image.Image:
    values = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(1)).numpy()
    return Image.fromarray((values * 255).astype(np.uint8)).resize(size[::-1], Image.Resampling.BILINEAR)


def drawn(size: tuple[int, int] = (32, 32)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[6 : size[0] // 2, 4 : size[1] - 8] = 255
    return mask


@pytest.fixture(scope="module", params=list(BUILDERS))
def model(request, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inpainting")
    pipeline = BUILDERS[request.param](tokenizer)
    pipeline.save_pretrained(folder)
    made = load(folder, device="cpu")
    assert type(made.pipeline) is type(pipeline)
    if hasattr(pipeline, "default_sample_size"):
        made.pipeline.default_sample_size = 16  # of FLUX's class, not of a folder
    return made


def theirs(model: Any, noise: torch.Tensor, size: tuple[int, int], guidance: float) -> torch.Tensor:
    """The latents of diffusers' own pipeline, from our noise."""
    model.pipeline.set_progress_bar_config(disable=True)
    flux = not model.guided
    latents = model.pipeline._pack_latents(noise, 1, *noise.shape[1:]) if flux else noise
    made = model.pipeline(
        prompt=PROMPT, image=picture(size), mask_image=Image.fromarray(drawn(size)), latents=latents,
        num_inference_steps=3, guidance_scale=guidance, strength=1.0, height=size[0], width=size[1],
        output_type="latent", **({"max_sequence_length": model.length} if flux else {}),
    ).images  # fmt: skip
    return model.pipeline._unpack_latents(made, *size, model.pipeline.vae_scale_factor) if flux else made


def test_latents_are_those_of_the_pipeline(model, monkeypatch):
    """The pipelines sample the autoencoder's posterior; here both take its mean."""
    size = 24, 40
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    noise = pw.noise_for(model, 4, 1, size)
    ours = pw.inpaint(
        picture(size), PROMPT, mask=drawn(size), model=model, steps=3, guidance=3.0, seed=4, size=size
    ).sample.latents  # fmt: skip
    wanted = theirs(model, noise, size, 3.0)
    torch.testing.assert_close(ours[1], wanted, rtol=1e-4, atol=1e-4)
    plain = pw.inpaint(
        picture(size), PROMPT, mask=255 - drawn(size), model=model, steps=3, guidance=3.0, seed=4, size=size
    ).sample.latents  # fmt: skip
    assert (plain[1] - wanted).abs().max() > 1e-2, "the mask must have a say, else this proves nothing"


def test_blended_latents_outside_the_mask_are_the_image_s(model):
    made = pw.inpaint(picture(), PROMPT, mask=drawn(), model=model, steps=2, blended=True)
    latents = made.sample.latents
    outside = torch.from_numpy(np.kron(drawn()[::2, ::2] == 0, np.ones((1, 1), bool)))
    assert torch.equal(latents[1, 0][:, outside], latents[0, 0][:, outside])
    assert not torch.equal(latents[1, 0], latents[0, 0])


def test_prompt_to_prompt_runs_with_the_mask_given(model):
    target = PROMPT.replace("cat", "dog")
    joint = {"joint": 0.6} if model.scheduler == "flow-euler" else {}
    run = partial(pw.edit, PROMPT, target, model=model, steps=2, image=picture(), mask=drawn())
    made = run(**joint)
    assert [type(control).__name__ for control in made.recipe.controls] == ["Inpaint", "Replace", "LocalBlend"]
    alone = run(kind="inpaint")
    assert not torch.equal(alone.sample.latents[1], made.sample.latents[1])


def test_without_a_mask_or_an_image_the_error_says_so(model):
    with pytest.raises(ValueError, match="reads a mask and the image around it. Received neither. Give image="):
        pw.generate(PROMPT, model=model, steps=2)
    with pytest.raises(ValueError, match="Received neither"):
        pw.edit(PROMPT, PROMPT.replace("cat", "dog"), model=model, steps=2, image=picture())
    with pytest.raises(ValueError, match="by a network that reads none"):
        pw.inpaint(picture(), PROMPT, mask="diffedit", model=model, steps=2)


def test_runs_of_several_images_share_passes(model):
    """Each run of a shared pass reads its own mask."""
    from promptweave.editing.edit import run_many

    masks = drawn(), 255 - drawn()
    alone = [pw.inpaint(picture(), PROMPT, mask=mask, model=model, steps=2) for mask in masks]
    together = run_many([made.recipe for made in alone], model)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.sample.latents, other.sample.latents, rtol=1e-4, atol=1e-5)


def test_an_ordinary_network_in_the_pipeline_of_inpainting_blends(tokenizer):
    model = load(build_inpainting(tokenizer, 4))
    made = pw.inpaint(picture(), PROMPT, mask=drawn(), model=model, steps=2)
    assert made.recipe.controls[0].blended is None and model.channels == 4
    outside = torch.from_numpy(drawn()[::2, ::2] == 0)
    assert torch.equal(made.sample.latents[1, 0][:, outside], made.sample.latents[0, 0][:, outside])


def test_nine_channels_under_another_class(tokenizer, tmp_path):
    build_inpainting(tokenizer).save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index.pop("image_encoder", None)
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ModelError, match="_class_name must be StableDiffusionInpaintPipeline"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("tensor", "inputs", "name"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", 9, "StableDiffusionInpaintPipeline"),
        ("model.diffusion_model.input_blocks.0.0.weight", 4, "StableDiffusionPipeline"),
        ("img_in.weight", 384, "FluxFillPipeline"),
        ("img_in.weight", 64, "FluxPipeline"),
    ],
)  # fmt: skip
def test_single_files_are_known_by_the_channels_that_they_read(tensor, inputs, name, tmp_path):
    more = {"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)} if "img_in" in tensor else {}
    save_file({tensor: torch.zeros(2, inputs, 1, 1), **more}, tmp_path / "model.safetensors")
    assert pipeline_class(tmp_path / "model.safetensors").__name__ == name

"""Sites of real configurations, sizes that are not square, and the doors to text and pictures."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from promptweave.models.base import Model
from promptweave.models.unet import UNetModel


def on_meta(tiny: UNetModel, **config) -> UNetModel:
    """A full-size network without weights, beside the small encoder and decoder."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    parts = {**tiny.pipeline.components, "unet": unet}
    return UNetModel(StableDiffusionPipeline(**parts, requires_safety_checker=False), "meta")


def test_the_32_rows_of_stable_diffusion_1(tiny):
    model = on_meta(tiny, cross_attention_dim=768, attention_head_dim=8)
    listing = [("down", r) for r in (64, 64, 32, 32, 16, 16)] + [("mid", 8)]
    listing += [("up", r) for r in (16,) * 3 + (32,) * 3 + (64,) * 3]
    wanted = [(kind, place, (r, r), 8) for place, r in listing for kind in ("self", "cross")]
    sites = model.sites((64, 64))
    assert len(sites) == 32
    assert [(s.kind, s.place, s.grid, s.heads) for s in sites] == wanted
    assert [s.index for s in sites] == list(range(32))
    assert len({s.name for s in sites}) == len({s.path for s in sites}) == 32
    assert sites[1].name == "down_cross_0_res_64" and sites[12].path.startswith("mid_block.")
    assert model.map_grid((64, 64)) == (16, 16)
    assert model.map_grid((96, 96)) == (24, 24)  # Stable Diffusion 2.1 at 768 pixels


def test_the_heads_of_stable_diffusion_2(tiny):
    model = on_meta(tiny, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True)
    heads = [s.heads for s in model.sites((64, 64)) if s.kind == "cross"]
    assert heads == [5, 5, 10, 10, 20, 20, 20] + [20] * 3 + [10] * 3 + [5] * 3


@pytest.mark.parametrize(
    ("latent", "grids"),
    [((64, 96), [(64, 96), (32, 48), (16, 24), (8, 12)]), ((9, 15), [(9, 15), (5, 8), (3, 4), (2, 2)])],
)
def test_sizes_that_are_not_square_or_odd(tiny, latent, grids):
    model = on_meta(tiny, cross_attention_dim=768, attention_head_dim=8)
    sites = model.sites(latent)
    assert list(dict.fromkeys(s.grid for s in sites if s.place != "up")) == grids
    assert sites[0].name == f"down_self_0_res_{latent[0]}x{latent[1]}"


def test_a_small_latent_reads_words_on_its_finest_grid(tiny):
    assert tiny.map_grid((16, 16)) == (16, 16)
    assert tiny.map_grid((12, 8)) == (12, 8)


def test_it_is_a_model_with_the_same_fingerprint_in_any_precision(tiny, tiny64):
    assert isinstance(tiny, Model)
    assert tiny.fingerprint() == tiny64.fingerprint() == tiny.fingerprint()
    assert len(tiny.fingerprint()) == 16


def test_another_weight_is_another_fingerprint(tiny):
    unet = copy.deepcopy(tiny.unet)
    unet.conv_in.bias.data[0] += 1
    other = UNetModel(
        StableDiffusionPipeline(**{**tiny.pipeline.components, "unet": unet}, requires_safety_checker=False), "b"
    )
    assert other.fingerprint() != tiny.fingerprint()


def test_encoding_is_that_of_the_pipeline(tiny):
    prompts, negative = ["a black cat", "a red car on a beach"], ["", "snow"]
    text = tiny.encode(prompts, negative)
    cond, uncond = tiny.pipeline.encode_prompt(prompts, torch.device("cpu"), 1, True, negative)
    assert text.keys is text.values
    assert torch.equal(text.keys, cond) and torch.equal(text.uncond, uncond)


def test_pictures_through_the_autoencoder(tiny, tiny64):
    pictures = torch.rand(2, 20, 28, 3, generator=torch.Generator().manual_seed(0))
    z = tiny.to_latent(pictures)
    assert z.shape == (2, tiny.channels, 20 // tiny.factor, 28 // tiny.factor)
    mean = tiny.vae.encode(pictures.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean
    torch.testing.assert_close(z, mean * tiny.vae.config.scaling_factor, rtol=1e-6, atol=1e-7)
    back = tiny.to_image(z)
    assert back.shape == pictures.shape and back.min() >= 0 and back.max() <= 1
    assert tiny64.to_latent(pictures.double()).dtype == torch.float64
    assert tiny64.to_image(z.double()).dtype == torch.float64

"""What the extractor reads: levels and maps against a plain reading of the network, on every family."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from families import BUILDERS, build_flux_fill, build_inpainting

from promptweave.models.levels import levels_of
from promptweave.models.load import load
from promptweave.perception.extractor import Extractor, TextAdapter


def picture(model, n=2, side=None) -> torch.Tensor:
    height, width = (side, side) if side else model.default_size
    return torch.rand(n, height, width, 3, generator=torch.Generator().manual_seed(0))


def test_maps_and_levels_are_those_of_a_plain_reading(tiny64):
    """Softmax of queries and keys, written out in double precision, averaged over heads and layers of a grid."""
    extractor = Extractor(tiny64, t=7)
    z = torch.randn(2, 4, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    context = torch.randn(2, 5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    seen = extractor.see(z, context)
    maps, outputs, hooks = {}, {}, []
    for path, module in tiny64.unet.named_modules():
        if path.endswith("attn2"):
            hooks.append(module.register_forward_pre_hook(
                lambda m, args, kwargs, path=path: maps.__setitem__(path, (m, [*args, kwargs.get("hidden_states")][0])),
                with_kwargs=True,
            ))  # fmt: skip
        if path in ("up_blocks.0.attentions.1", "up_blocks.1.attentions.1"):
            hooks.append(module.register_forward_hook(lambda m, i, o, path=path: outputs.__setitem__(path, o[0])))
    with torch.no_grad():
        tiny64.unet(z, 7, encoder_hidden_states=context)
    for hook in hooks:
        hook.remove()
    assert len(seen.levels) == 2 and [x.shape[1] for x in seen.levels] == list(extractor.channels) == [32, 48]
    torch.testing.assert_close(seen.levels[0], outputs["up_blocks.1.attentions.1"], rtol=0, atol=1e-12)
    torch.testing.assert_close(seen.levels[1], outputs["up_blocks.0.attentions.1"], rtol=0, atol=1e-12)
    by_side: dict[int, list[torch.Tensor]] = {}
    for path, (layer, x) in maps.items():
        if path.startswith("mid"):
            continue
        q, k = layer.to_q(x), layer.to_k(context)
        q, k = (y.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for y in (q, k))
        dense = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).mean(1)
        by_side.setdefault(round(x.shape[1] ** 0.5), []).append(
            dense.transpose(1, 2).unflatten(2, (-1, round(x.shape[1] ** 0.5)))
        )
    for map, side in zip(seen.maps, (16, 8), strict=True):
        assert map is not None and len(by_side[side]) == 3  # one layer of the encoder, two of the decoder
        torch.testing.assert_close(map, torch.stack(by_side[side]).mean(0), rtol=0, atol=1e-12)
        torch.testing.assert_close(map.sum(1), torch.ones_like(map[:, 0]), rtol=0, atol=1e-12)


def test_the_levels_of_stable_diffusion_are_the_published_ones(tokenizer):
    """Output blocks 1, 4, 7 and 11 of 12; maps at 32 and 16 of 512 pixels; channels as in the segmentation config."""
    from tiny import build_tiny

    pipeline = build_tiny(tokenizer)
    pipeline.unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(8, 16, 32, 32), norm_num_groups=4, cross_attention_dim=24,
        attention_head_dim=4,
    )  # fmt: skip
    levels = levels_of(pipeline.unet)
    assert [level.path for level in levels] == [
        "up_blocks.0.resnets.1", "up_blocks.1.attentions.1", "up_blocks.2.attentions.1", "up_blocks.3.attentions.2",
    ]  # fmt: skip
    extractor = Extractor(load(pipeline))
    size = (64 * extractor.model.factor,) * 2
    assert extractor.channels == (8, 16, 32, 32) and extractor.has_maps(size) == (False, True, True, False)
    assert extractor.grids(size) == ((64, 64), (32, 32), (16, 16), (8, 8))


@pytest.mark.parametrize("family", list(BUILDERS))
def test_every_family_gives_features(family, tokenizer):
    model = load(BUILDERS[family](tokenizer))
    extractor = Extractor(model)
    pictures = picture(model)
    names = ("cat", "dog", "red car")
    context = extractor.vectors(names)[None].expand(2, -1, -1)
    assert context.shape == (2, 3, extractor.dim)
    with torch.no_grad():
        seen = extractor.see(extractor.latents(pictures), context)
        again = extractor.see(extractor.latents(pictures), context)
    size = (pictures.shape[1], pictures.shape[2])
    assert tuple(x.shape[1] for x in seen.levels) == extractor.channels
    assert tuple(tuple(x.shape[2:]) for x in seen.levels) == extractor.grids(size)
    assert tuple(map is not None for map in seen.maps) == extractor.has_maps(size) and any(extractor.has_maps(size))
    for level, map in zip(seen.levels, seen.maps, strict=True):
        assert level.isfinite().all() and level.std() > 0
        if map is not None:
            assert map.shape[:2] == (2, 3) and (map >= 0).all() and (map.sum(1) <= 1 + 1e-4).all()
            assert (map[:, 0] - map[:, 1]).abs().max() > 0, "each class has a map of its own"
    assert all(torch.equal(a, b) for a, b in zip(seen.levels, again.levels, strict=True)), "no noise is added"
    if extractor.joint:
        with pytest.raises(ValueError, match="joint attention reads at most"):
            extractor.see(extractor.latents(pictures), torch.zeros(2, 600, extractor.dim))


@pytest.mark.parametrize("build", [build_inpainting, build_flux_fill])
def test_networks_that_read_more_than_a_latent_are_refused(build, tokenizer):
    with pytest.raises(ValueError, match="text-to-image model of its family"):
        Extractor(load(build(tokenizer)))


def test_the_class_vector_of_stable_diffusion_is_clips_pooled_output(tiny):
    extractor = Extractor(tiny)
    ids = tiny.tokenizer(
        ["a photo of a cat", "cat"], padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    pooled = tiny.text_encoder(ids).pooler_output
    found = extractor.vectors(["cat"], ("a photo of a {}", "{}"))[0]
    torch.testing.assert_close(found, pooled.mean(0))


def test_the_adapter_begins_near_the_frozen_text():
    adapter, text = TextAdapter(6), torch.randn(2, 3, 6)
    assert adapter.gamma.shape == (6,) and (adapter.gamma == 1e-4).all()
    expected = text + 1e-4 * adapter.mlp[2](torch.nn.functional.gelu(adapter.mlp[0](text)))
    torch.testing.assert_close(adapter(text), expected)
    torch.nn.init.zeros_(adapter.gamma)
    assert torch.equal(adapter(text), text)


def test_the_published_scale_leaves_out_the_factor(tiny):
    pictures = picture(tiny, 1)
    ours, theirs = (Extractor(tiny, published_scale=value).latents(pictures) for value in (False, True))
    torch.testing.assert_close(theirs * tiny.vae.config.scaling_factor, ours)


def test_sides_that_do_not_fit_and_phrases_that_are_too_long_are_refused(tiny):
    extractor = Extractor(tiny)
    with pytest.raises(ValueError, match="multiples of 2. Received 31 x 32"):
        extractor.latents(torch.zeros(1, 31, 32, 3))
    with pytest.raises(ValueError, match="at most 4 tokens"):
        extractor.phrases(["a photo of a cat"], 4)


def test_no_hook_and_no_processor_stays_behind(tiny):
    before = dict(tiny.unet.attn_processors)
    extractor = Extractor(tiny)
    with pytest.raises(RuntimeError, match="stop"):
        extractor.see(
            torch.randn(1, 4, 16, 16), torch.randn(1, 3, 24), lambda seen: (_ for _ in ()).throw(RuntimeError("stop"))
        )
    assert dict(tiny.unet.attn_processors) == before
    assert not any(module._forward_hooks for module in tiny.unet.modules())

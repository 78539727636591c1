"""The tap: plain without edits, gone after use, and never in place of somebody else's processor."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from tiny import build_tiny

from promptweave.core.rows import Layout, Rows
from promptweave.core.site import Site
from promptweave.core.tapping import Tap
from promptweave.models.tap import ForeignProcessor, TapProcessor, installed
from promptweave.models.unet import UNetModel

GRID = (12, 8)
LAYOUT = Layout(("uncond", "cond"), 3, 1)
SITE = Site("down_self_0_res_3x5", "self", "down", 0, 2, (3, 5))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def batch(tiny):
    context = draw(LAYOUT.size, 77, tiny.unet.config.cross_attention_dim)
    return draw(LAYOUT.size, tiny.channels, *GRID), 501, context


def unchanged(site: Site, rows: Rows) -> Rows:
    return rows


def test_without_edits_the_network_is_bit_identical(tiny, batch):
    with torch.no_grad():
        assert torch.equal(tiny.predict(*batch), tiny.predict(*batch, Tap.of(LAYOUT, unchanged)))


def test_reading_attention_changes_nothing(tiny, batch):
    """And what is read is softmax(q k^T / sqrt(d)) of the row, at every layer."""
    seen: list[str] = []

    def look(site: Site, rows: Rows) -> Rows:
        where = rows.layout.slice("cond", 1)
        scores = rows.q[where] @ rows.k[where].mT / rows.q.shape[-1] ** 0.5
        torch.testing.assert_close(rows["cond"][1].pattern.dense, scores.softmax(-1), rtol=1e-5, atol=1e-6)
        seen.append(site.name)
        return rows

    with torch.no_grad():
        assert torch.equal(tiny.predict(*batch), tiny.predict(*batch, Tap.of(LAYOUT, look)))
    assert seen == [site.name for site in tiny.sites(GRID)]


def test_sites_are_visited_in_their_order_with_their_shapes(tiny, batch):
    seen: list[Site] = []

    def note(site: Site, rows: Rows) -> Rows:
        seen.append(site)
        assert rows.q.shape[:3] == (LAYOUT.size, site.heads, site.queries)
        assert rows.k.shape[2] == (77 if site.kind == "cross" else site.queries)
        return rows

    with torch.no_grad():
        tiny.predict(*batch, Tap.of(LAYOUT, note))
    assert tuple(seen) == tiny.sites(GRID)


def test_the_very_same_processors_come_back_after_an_exception(tiny, batch):
    before = dict(tiny.unet.attn_processors)

    def fail(site: Site, rows: Rows) -> Rows:
        if site.place == "mid":
            raise RuntimeError("in the middle")
        return rows

    with pytest.raises(RuntimeError, match="in the middle"):
        tiny.predict(*batch, Tap.of(LAYOUT, fail))
    after = tiny.unet.attn_processors
    assert before.keys() == after.keys() and all(after[path] is before[path] for path in before)


class Foreign(AttnProcessor2_0):
    """Somebody else's: a subclass of the plain one is not the plain one."""


def test_foreign_processors_are_refused_by_name_before_anything_changes(tiny, batch):
    model = UNetModel(copy.copy(tiny.pipeline), "foreign")
    model.unet = copy.deepcopy(tiny.unet)
    last = list(model._blocks)[-1]
    last[3].set_processor(Foreign())
    before = dict(model.unet.attn_processors)
    with pytest.raises(ForeignProcessor, match=rf"{last[0]} carries Foreign.*set_default_attn_processor"):
        model.predict(*batch, Tap.of(LAYOUT, unchanged))
    assert all(model.unet.attn_processors[path] is before[path] for path in before)
    with torch.no_grad():
        model.predict(*batch)  # without controls nothing is in the way


@pytest.mark.parametrize("processor", [SlicedAttnProcessor(1), AttnProcessor(), XFormersAttnProcessor()])
def test_processors_that_compute_plain_attention_are_replaced_and_come_back(tiny, batch, processor):
    """Slices, and xformers' kernels, which need not be there for a pass under a tap."""
    model = UNetModel(copy.copy(tiny.pipeline), "sliced")
    model.unet = copy.deepcopy(tiny.unet)
    model.unet.set_attn_processor(processor)

    def edit(site: Site, rows: Rows) -> Rows:
        return rows.put("cond", 1, pattern=rows["cond"][0].pattern)

    with torch.no_grad():
        wanted = tiny.predict(*batch, Tap.of(LAYOUT, edit))
        assert torch.equal(model.predict(*batch, Tap.of(LAYOUT, edit)), wanted)
        assert not torch.equal(wanted, tiny.predict(*batch))
    assert all(found is processor for found in model.unet.attn_processors.values())


def test_an_edit_under_attention_slicing_is_the_same(tokenizer):
    import promptweave as pw

    pipeline = build_tiny(tokenizer)
    prompts = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
    wanted = pw.edit(*prompts, model=pw.load(pipeline), steps=2).sample.latents
    pipeline.enable_attention_slicing()
    assert torch.equal(pw.edit(*prompts, model=pw.load(pipeline), steps=2).sample.latents, wanted)
    assert {type(p) for p in pipeline.unet.attn_processors.values()} == {SlicedAttnProcessor}


def test_fused_projections_are_refused(tiny, batch):
    model = UNetModel(copy.copy(tiny.pipeline), "fused")
    model.unet = copy.deepcopy(tiny.unet)
    model.unet.fuse_qkv_projections()
    with pytest.raises(ForeignProcessor, match="FusedAttnProcessor2_0.*unfuse_qkv_projections"):
        model.predict(*batch, Tap.of(LAYOUT, unchanged))


LAYERS = {
    "plain": {},
    "group norm, residual": {"norm_num_groups": 5, "residual_connection": True, "bias": True},
    "rescaled": {"rescale_output_factor": 1.7, "residual_connection": True},
    "norm of keys": {"qk_norm": "layer_norm"},
    "spatial norm": {"spatial_norm_dim": 6, "query_dim": 32},
}


PATHS = [(name, shape) for name in LAYERS for shape in ((6, 10, 3, 5), (6, 15, 10)) if name != "spatial norm"]


@pytest.mark.parametrize(("name", "shape"), [*PATHS, ("spatial norm", (6, 32, 3, 5))])
def test_every_path_of_the_plain_processor(name, shape):
    """Group and spatial norm, the residual, the factor; pixels as a picture or as a list."""
    torch.manual_seed(0)
    layer = Attention(**{"query_dim": 10, "heads": 2, "dim_head": 4, **LAYERS[name]}).eval()
    x, temb = draw(*shape), draw(6, 6, 3, 5, seed=1) if name == "spatial norm" else None
    with torch.no_grad():
        wanted = layer(x, temb=temb)
        with installed({"layer": layer}, {"layer": SITE}, Tap.of(LAYOUT, unchanged)):
            assert isinstance(layer.processor, TapProcessor)
            assert torch.equal(layer(x, temb=temb), wanted)


@pytest.mark.parametrize("normed", [None, "layer_norm"])
def test_cross_attention_with_a_norm_of_the_text(normed):
    torch.manual_seed(0)
    layer = Attention(query_dim=10, cross_attention_dim=6, heads=2, dim_head=4, cross_attention_norm=normed).eval()
    x, text = draw(6, 15, 10), draw(6, 7, 6)
    with torch.no_grad():
        wanted = layer(x, text)
        with installed({"layer": layer}, {"layer": SITE}, Tap.of(LAYOUT, unchanged)):
            assert torch.equal(layer(x, text), wanted)


def test_a_mask_is_obeyed_where_nothing_is_edited_and_refused_where_something_is():
    torch.manual_seed(0)
    layer = Attention(query_dim=10, cross_attention_dim=6, heads=2, dim_head=4).eval()
    x, text = draw(6, 15, 10), draw(6, 7, 6)
    mask = torch.zeros(6, 1, 7).masked_fill(torch.arange(7) > 3, -10000.0)

    def edit(site: Site, rows: Rows) -> Rows:
        return rows.put("cond", 1, pattern=rows["cond"][0].pattern)

    with torch.no_grad():
        wanted = layer(x, text, mask)
        assert not torch.equal(wanted, layer(x, text))
        with installed({"layer": layer}, {"layer": SITE}, Tap.of(LAYOUT, unchanged)):
            assert torch.equal(layer(x, text, mask), wanted)
        with installed({"layer": layer}, {"layer": SITE}, Tap.of(LAYOUT, edit)):
            with pytest.raises(ValueError, match="attention mask"):
                layer(x, text, mask)


def test_values_from_another_text():
    """Keys from one text and values from another, which is what Structured Diffusion needs."""
    torch.manual_seed(0)
    layer = Attention(query_dim=10, cross_attention_dim=6, heads=2, dim_head=4).eval()
    x, keys, values = draw(6, 15, 10), draw(6, 7, 6), draw(6, 7, 6, seed=1)
    with torch.no_grad():
        with installed({"layer": layer}, {"layer": SITE}, Tap.of(LAYOUT, unchanged, keys.clone())):
            assert torch.equal(layer(x, keys), layer(x, keys.clone()))
        with installed({"layer": layer}, {"layer": SITE}, Tap.of(LAYOUT, unchanged, values)):
            got = layer(x, keys)
        q, k, v = (
            y.unflatten(-1, (2, 4)).transpose(1, 2) for y in (layer.to_q(x), layer.to_k(keys), layer.to_v(values))
        )
        wanted = layer.to_out[0](torch.softmax(q @ k.mT / 2, -1).matmul(v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)  # single precision, one layer


def test_gradients_reach_the_latent_through_maps(tiny, batch):
    z, t, context = batch
    z = z.clone().requires_grad_()
    found = []

    def look(site: Site, rows: Rows) -> Rows:
        if site.place == "mid" and site.kind == "cross":
            found.append(rows["cond"][1].pattern.dense[..., 2].sum())
        return rows

    tiny.predict(z, t, context, Tap.of(LAYOUT, look))
    (gradient,) = torch.autograd.grad(found[0], z)
    assert gradient[4].abs().max() > 0 and gradient[[0, 1, 2, 3, 5]].abs().max() == 0

"""What both halves of guidance share before the text is read is computed once, and nothing changes by it."""

from __future__ import annotations

import pytest
import torch
from families import build_sdxl
from tiny import build_tiny

from promptweave import Control, Hooks, LocalBlend, Replace, noise_for, sample
from promptweave.models import unet as unet_module
from promptweave.models.prefix import prefix

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"


def edited(model, controls, guidance: float = 3.0):
    return sample(
        model, [SOURCE, TARGET], noise=noise_for(model, 0, 2), steps=4, guidance=guidance, controls=controls
    ).latents  # fmt: skip


@pytest.mark.parametrize("controls", [[Replace()], [Replace(1.0, 1.0, self_grid=256)], [Replace(), LocalBlend("dog")]])
def test_nothing_changes(tiny64, controls, monkeypatch):
    rows: list[int] = []
    handle = tiny64.unet.down_blocks[0].resnets[0].register_forward_hook(lambda m, i, o: rows.append(len(o)))
    shared = edited(tiny64, controls)
    assert set(rows) == {4}, "2 images of source and target, guided: 8 rows, of which 4 are different"
    rows.clear()
    monkeypatch.setattr(unet_module, "prefix", lambda unet: ([], ""))
    alone = edited(tiny64, controls)
    handle.remove()
    assert set(rows) == {8}
    torch.testing.assert_close(shared, alone, rtol=1e-10, atol=1e-10)


def test_the_first_self_attention_is_shared_unless_it_is_edited(tiny64, monkeypatch):
    layer = tiny64.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    rows: list[int] = []
    handle = layer.to_out[0].register_forward_hook(lambda m, i, o: rows.append(len(o)))
    edited(tiny64, [Replace(1.0, 0.5, self_grid=256)])
    handle.remove()
    assert rows == [8, 8, 4, 4]


class Failing(Control, Hooks):
    """A control that fails in the middle of a pass."""

    def bind(self, run):
        return self

    def attention(self, step, site, rows):
        raise ArithmeticError(site.name)


def test_hooks_are_gone_after_a_pass_and_after_an_error(tiny64):
    edited(tiny64, [Replace()])
    with pytest.raises(ArithmeticError, match="down_self_0"):
        edited(tiny64, [Failing()])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny64.unet.modules())


def test_without_guidance_nothing_is_shared(tiny64):
    rows: list[int] = []
    handle = tiny64.unet.conv_in.register_forward_hook(lambda m, i, o: rows.append(len(o)))
    edited(tiny64, [Replace()], guidance=1.0)
    handle.remove()
    assert set(rows) == {4}


def test_where_the_prefix_ends(tokenizer):
    unet = build_tiny(tokenizer).unet
    modules, path = prefix(unet)
    assert unet.down_blocks[0].resnets[0] in modules and path == "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    assert unet.get_submodule(path).to_q.in_features == 32
    assert prefix(build_sdxl(tokenizer).unet) == ([], ""), "its time embedding reads the text"
    unet.compile(backend="eager")
    assert prefix(unet) == ([], "")

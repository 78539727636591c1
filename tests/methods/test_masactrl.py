"""MasaCtrl against its equation written out, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import build_sd3, build_sdxl
from PIL import Image
from tiny import build_tiny

from promptweave import MasaCtrl, NoEffect, Recipe, edit, load, noise_for, record, sample
from promptweave.apps.cli import main
from promptweave.methods.masactrl import foreground, kept_apart

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a black cat in the snow"


def made(model, control, prompts=(SOURCE, TARGET), steps: int = 4, images: int = 1):
    noise = noise_for(model, 0, images).to(model.dtype)
    controls = [] if control is None else [control]
    return sample(model, prompts, noise=noise, steps=steps, guidance=3.0, controls=controls).latents


class Mutual:
    """The published processor, written out: every target asks row 0 of its half."""

    def __init__(self, union: bool = False) -> None:
        self.union = union

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        rows = []
        for row in range(len(q)):
            source = row - row % (len(q) // 2)
            keys, values = k[source], v[source]
            if self.union and row != source:
                keys, values = torch.cat([keys, k[row]], -2), torch.cat([values, v[row]], -2)
            rows.append((q[row] @ keys.mT / q.shape[-1] ** 0.5).softmax(-1) @ values)
        return attn.to_out[0](torch.stack(rows).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("union", [False, True])
def test_it_is_the_equation(tiny64, union):
    ours = made(tiny64, MasaCtrl(0, 0.5, union), steps=3)
    layers = [site.path for site in tiny64.sites((16, 16)) if site.kind == "self"]
    chosen, before = layers[round(len(layers) / 2) :], tiny64.unet.attn_processors
    for path in chosen:
        tiny64.unet.get_submodule(path).set_processor(Mutual(union))
    pipeline = tiny64.pipeline
    pipeline.set_progress_bar_config(disable=True)
    noise = noise_for(tiny64, 0).double().expand(2, -1, -1, -1)
    wanted = pipeline(
        [SOURCE, TARGET], latents=noise, num_inference_steps=3, guidance_scale=3.0, output_type="latent"
    ).images  # fmt: skip
    tiny64.unet.set_attn_processor(before)
    torch.testing.assert_close(ours[:, 0], wanted, rtol=1e-7, atol=1e-7)
    assert len(chosen) > 1 and (ours[1] - made(tiny64, None, steps=3)[1]).abs().max() > 1e-2


def test_the_source_is_untouched_and_an_equal_target_is_the_source(tiny64):
    plain = made(tiny64, None, (SOURCE, SOURCE, TARGET), images=2)
    masked = MasaCtrl(0, 0, words=("cat",))  # the source itself attends to everything
    for control in (MasaCtrl(0, 0), MasaCtrl(0.3, union=True), masked):
        edited = made(tiny64, control, (SOURCE, SOURCE, TARGET), images=2)
        torch.testing.assert_close(edited[0], plain[0], rtol=1e-9, atol=1e-9)
        if control is not masked:
            torch.testing.assert_close(edited[1], plain[0], rtol=1e-6, atol=1e-6)


def test_several_pictures_and_targets_are_as_if_alone(tiny64):
    control = MasaCtrl(0, 0.3, words=("cat",))
    many = made(tiny64, control, (SOURCE, TARGET, "a cat"), images=2)
    one = made(tiny64, control)
    torch.testing.assert_close(many[1, 0], one[1, 0], rtol=1e-7, atol=1e-7)


def test_foreground_and_background_are_kept_apart():
    q, k = (torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    asking, asked = torch.tensor([[1, 1, 0, 0, 0]] * 2).bool(), torch.tensor([[1, 0, 1, 0, 0], [0] * 5]).bool()
    p = kept_apart(q, k, asking, asked)
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 3, 5))
    assert (p[0][:, :2][..., [1, 3, 4]] == 0).all() and (p[0][:, 2:][..., [0, 2]] == 0).all()
    scores = q[0] @ k[0].mT / 2
    torch.testing.assert_close(p[0][:, 0][..., [0, 2]], scores[:, 0][..., [0, 2]].softmax(-1))
    torch.testing.assert_close(p[1][:, 0], (q[1] @ k[1].mT / 2).softmax(-1)[:, 0])  # nobody to ask: all
    heat = torch.tensor([[[0.0, 1.0], [2.0, 10.0]], [[3.0, 3.0], [3.0, 3.0]]])
    assert foreground(heat, 0.15).tolist() == [[[False, False], [True, True]], [[True, True], [True, True]]]


def test_drawn_masks_say_who_asks_whom(tiny64):
    """With its foreground where the source's background is, a target differs from one that is masked alike."""
    left = ((1.0,) * 8 + (0.0,) * 8,) * 16
    right = tuple(row[::-1] for row in left)
    alike, crossed = (made(tiny64, MasaCtrl(0, 0.5, masks=(left, mask))) for mask in (left, right))
    plain = made(tiny64, MasaCtrl(0, 0.5))
    assert (alike[1] - crossed[1]).abs().max() > 1e-3 and (alike[1] - plain[1]).abs().max() > 1e-3
    both = made(tiny64, MasaCtrl(0, 0.5, masks=(right, left)))
    torch.testing.assert_close(both[1], crossed[1])  # foreground and background have the same rights
    torch.testing.assert_close(alike[0], plain[0])


@pytest.mark.parametrize("build", [build_tiny, build_sdxl])
def test_families_in_half_precision(build, tokenizer):
    model = load(build(tokenizer).to(torch.bfloat16))
    for control in (MasaCtrl(0), MasaCtrl(0, words=("cat",))):
        assert torch.isfinite(made(model, control, images=2).float()).all()


def test_bad_parameters(tiny, tokenizer):
    for control, error, message in (
        (MasaCtrl(1.0), NoEffect, "one of the 4 steps"),
        (MasaCtrl(layers=1.0), NoEffect, "needs one of the"),
        (MasaCtrl(layers=1.5), ValueError, "layers of MasaCtrl is a fraction"),
        (MasaCtrl(threshold=1), ValueError, "threshold of MasaCtrl is a fraction"),
        (MasaCtrl(words=("dog",)), ValueError, "'dog' is not a word"),
        (MasaCtrl(union=True, words=("cat",)), ValueError, "only one of"),
        (MasaCtrl(masks=(((1.0, 0.0),), ((1.0, 1.0),))), NoEffect, "all the same"),
        (MasaCtrl(masks=(((1.0, 0.0),), ((1.0, 0.0), (1.0,)))), ValueError, "all of one length"),
    ):
        with pytest.raises(error, match=message):
            made(tiny, control)
    for dual in ((), (0, 1)):  # the latter, of Stable Diffusion 3.5 medium, has layers of self-attention too
        model = load(build_sd3(tokenizer, dual=dual))
        assert any(site.kind == "self" for site in model.sites((16, 16))) == bool(dual)
        with pytest.raises(ValueError, match="attention is joint"):
            made(model, MasaCtrl())
    with pytest.raises(ValueError, match="without a recording"):
        edit(record(SOURCE, model=tiny, steps=2), TARGET, model=tiny, controls=[MasaCtrl(0)])


def test_the_command_with_masks(tmp_path, capsys):
    Image.fromarray(np.tri(32, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    masks = ["--masks", str(tmp_path / "mask.png"), str(tmp_path / "mask.png")]
    for given, code in ((masks, 0), (masks[:2], 2)):
        with pytest.raises(SystemExit) as end:
            main(["masactrl", SOURCE, TARGET, "--steps", "2", "--start", "0", *given, "-o", str(tmp_path / str(code))])
        assert end.value.code == code
    assert "--masks requires 2 positional arguments. Only got 1." in capsys.readouterr().err


def test_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["masactrl", SOURCE, TARGET, "--steps", "2", "--start", "0", "-w", "cat", "-o", str(tmp_path / "made")])
    assert end.value.code == 0 and "self steps 2" in capsys.readouterr().out
    assert (tmp_path / "made" / "edit.png").is_file()
    made = edit(SOURCE, TARGET, steps=2, controls=[MasaCtrl(0)])
    assert Recipe.from_dict(made.recipe.as_dict()).controls == (MasaCtrl(0),)

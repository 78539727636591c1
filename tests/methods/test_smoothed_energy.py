"""SEG against diffusers' guider, against its equation on every family, and its laws."""

from __future__ import annotations

import json
import math

import pytest
import torch
from diffusers.guiders import SmoothedEnergyGuidance as Guider
from diffusers.hooks import smoothed_energy_guidance_utils as theirs
from families import BUILDERS
from weaker import CLOSE, PROMPT, TARGET, Watch, check_equation, guided_by, made

from promptweave import (
    NoEffect,
    PerturbedAttentionGuidance,
    Replace,
    SmoothedEnergyGuidance,
    edit,
    generate,
    load,
    record,
    replay,
)
from promptweave.core.pattern import Dense, Pattern, Term
from promptweave.core.rows import NotRecorded, Row
from promptweave.core.site import Site
from promptweave.methods.smoothed_energy import blurred, smoothed


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 50.0])
@pytest.mark.parametrize("side", [5, 8, 16])
def test_the_blur_is_theirs(sigma, side):
    """Mirrored edges, three sigma to each side, half the grid at most. Theirs blurs above a threshold, here 0."""
    q = torch.randn(2, 3, side * side, 4, generator=torch.Generator().manual_seed(0))
    size = math.ceil(6 * sigma) + 1 - math.ceil(6 * sigma) % 2
    flat = q.transpose(1, 2).flatten(2)
    wanted = theirs._gaussian_blur_2d(flat.clone(), size, sigma, 0.0)
    ours = blurred(q, (side, side), sigma)
    torch.testing.assert_close(ours.transpose(1, 2).flatten(2), wanted, rtol=1e-5, atol=1e-5)
    mean = blurred(q, (side, side), math.inf)
    torch.testing.assert_close(mean, q.mean(-2, keepdim=True).expand_as(q))
    assert (ours - mean).abs().max() > 1e-3


def test_a_grid_that_is_not_square():
    """Each axis by itself: a ramp along one axis is blurred along that one alone."""
    ramp = torch.arange(7.0).repeat(4, 1)  # 4 rows of 0 to 6
    q = ramp.reshape(1, 1, 28, 1).double()
    made = blurred(q, (4, 7), 0.6).reshape(4, 7)
    kernel = [math.exp(-0.5 * (d / 0.6) ** 2) for d in range(-2, 3)]
    mirrored = [2, 1, 0, 1, 2, 3, 4, 5, 6, 5, 4]
    wanted = [sum(k * mirrored[x + d] for d, k in enumerate(kernel)) / sum(kernel) for x in range(7)]
    torch.testing.assert_close(made, torch.tensor(wanted, dtype=torch.float64).repeat(4, 1), **CLOSE)


@pytest.mark.parametrize("sigma", [1.0, math.inf])
def test_it_is_diffusers_guider(tiny64, sigma, monkeypatch):
    """Their guider has its cases exchanged: what it does for a small sigma is ours for an infinite one, and the
    Gaussian comes with a threshold that is passed."""
    threshold = 9999.0 if math.isinf(sigma) else 0.0
    build = theirs.SmoothedEnergyGuidanceHook.__init__
    monkeypatch.setattr(
        theirs.SmoothedEnergyGuidanceHook, "__init__", lambda self, width: build(self, width, threshold)
    )  # fmt: skip
    layer = theirs.SmoothedEnergyGuidanceConfig([0], "mid_block.attentions.0.transformer_blocks")
    guider = Guider(4.0, seg_guidance_scale=2.5, seg_blur_sigma=1.0, seg_guidance_config=layer)
    run = made(tiny64, SmoothedEnergyGuidance(2.5, sigma), Watch(), guidance=4.0, steps=1)
    torch.testing.assert_close(run.hooks[1].seen[0].guided[0], guided_by(guider, tiny64), rtol=1e-6, atol=1e-7)


def scores_of(sigma):
    """Scores after a blur of the whole matrix over its image queries, written out."""

    def scores(site, q, k):
        made = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        begin, (height, width) = 0 if site.image is None else site.image.start, site.grid
        image = made[..., begin : begin + site.queries, :].clone()
        if math.isinf(sigma):
            new = image.mean(-2, keepdim=True).expand_as(image)
        else:
            along = [lines(side, sigma).to(image) for side in (height, width)]
            new = torch.einsum("yj,xi,...jik->...yxk", *along, image.unflatten(-2, (height, width))).flatten(-3, -2)
        made[..., begin : begin + site.queries, :] = new
        return made

    return scores


def lines(side, sigma):
    """The blur of a line as a matrix."""
    far = min(math.ceil(6 * sigma) // 2, side // 2)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    for place in range(side):
        for step in range(-far, far + 1):
            where = abs(place + step)
            where = 2 * (side - 1) - where if where >= side else where
            matrix[place, where] += math.exp(-0.5 * (step / sigma) ** 2)
    return matrix / matrix.sum(1, keepdim=True)


@pytest.mark.parametrize("sigma", [0.9, math.inf])
@pytest.mark.parametrize("family", BUILDERS)
def test_it_is_its_equation_on_every_family(family, sigma, tokenizer, monkeypatch):
    """Blurred queries are a blurred matrix of scores, as the paper has it."""
    model = load(BUILDERS[family](tokenizer).to(torch.float64))
    layers = ("mid", "up_self_0") if model.sites((16, 16))[0].kind == "self" else "stream"
    names = check_equation(
        model, SmoothedEnergyGuidance(2.0, sigma, layers), 2.0, scores_of(sigma), monkeypatch, steps=1
    )  # fmt: skip
    assert len(names) >= 2


def test_beside_prompt_to_prompt(tiny64):
    """What is blurred is the attention that the controls left: injected queries, not the target's own."""
    control = SmoothedEnergyGuidance(2.0, 1.0, ("mid", "up"))
    both = made(tiny64, Replace(1.0, 1.0), control, prompts=(PROMPT, PROMPT, TARGET)).latents
    torch.testing.assert_close(both[1], both[0], **CLOSE)
    torch.testing.assert_close(both[0], made(tiny64, control).latents[0], **CLOSE)
    assert (both[2] - made(tiny64, control, prompts=(TARGET,)).latents[0]).abs().max() > 1e-3


def test_attention_that_controls_changed_is_blurred():
    """The queries of a pattern are blurred wherever they came from; maps of tokens and gates around it stay."""
    draw = torch.Generator().manual_seed(1)
    q, k, other_q, other_k = (torch.randn(1, 2, 6, 5, generator=draw, dtype=torch.float64) for _ in range(4))
    tokens, gate = torch.rand(6, 6, generator=draw).double(), torch.rand(6, generator=draw).double()
    row = Row(
        q, k, k, (Pattern.of(other_q, other_k) @ tokens).gated(gate) + Pattern((Term(Dense(torch.eye(6)[None])),))
    )
    ours = smoothed(Site("mid_self_0", "self", "mid", 0, 2, (2, 3)), row, sigma=math.inf).dense
    scores = (other_q.mean(-2, keepdim=True) @ other_k.transpose(-1, -2)).expand(1, 2, 6, 6) / 5**0.5
    torch.testing.assert_close(ours, gate[:, None] * (scores.softmax(-1) @ tokens) + torch.eye(6).double(), **CLOSE)


def test_a_blur_between_nothing_and_the_mean(tiny64):
    """It grows with sigma; the mean of all is the most."""
    plain = made(tiny64, steps=1).latents
    moved = [
        float((made(tiny64, SmoothedEnergyGuidance(2.0, sigma), steps=1).latents - plain).norm())
        for sigma in (0.2, 0.5, 1.0, math.inf)
    ]
    assert 0 < moved[0] < moved[1] < moved[2] < moved[3]


def test_both_guidances_together(tiny64):
    seg, pag = SmoothedEnergyGuidance(2.0), PerturbedAttentionGuidance(2.0)
    one, two, both = (
        made(tiny64, *controls, Watch(), steps=1).hooks[-1].seen[0] for controls in ((seg,), (pag,), (seg, pag))
    )  # fmt: skip
    plain = made(tiny64, Watch(), steps=1).hooks[-1].seen[0].guided
    torch.testing.assert_close(both.guided, one.guided + two.guided - plain, **CLOSE)


def test_recordings(tiny):
    recording = record(PROMPT, model=tiny, steps=2)
    assert len(edit(recording, TARGET, model=tiny, controls=[SmoothedEnergyGuidance()]).edits) == 1
    with pytest.raises(NotRecorded, match="further predictions"):
        edit(recording, TARGET, model=tiny, controls=[Replace(), SmoothedEnergyGuidance()])


def test_what_cannot_act_is_said(tiny):
    cases = {
        (NoEffect, "a scale above 0"): SmoothedEnergyGuidance(0),
        (NoEffect, "a sigma above 1/6"): SmoothedEnergyGuidance(sigma=0.1),
        (ValueError, "sigma must be above 0"): SmoothedEnergyGuidance(sigma=0),
        (ValueError, "sigma must be above 0.*nan"): SmoothedEnergyGuidance(sigma=math.nan),
        (ValueError, "down_self_0.* Received 'blocks.1'"): SmoothedEnergyGuidance(layers="blocks.1"),
    }
    for (kind, text), control in cases.items():
        with pytest.raises(kind, match=text):
            generate(PROMPT, model=tiny, controls=[control], steps=2)


def test_a_saved_picture_is_made_again(tiny_folder, tmp_path):
    """Also one of an infinite sigma."""
    result = generate(PROMPT, model=str(tiny_folder), steps=2, controls=[SmoothedEnergyGuidance()])
    result.save_picture(tmp_path / "made.png", 0, 0)
    again = replay(tmp_path / "made.png")
    assert again.result.recipe.controls == (SmoothedEnergyGuidance(),) and again.matches
    result.save(tmp_path / "run")

    def refused(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    record = json.loads((tmp_path / "run" / "steered.json").read_text(), parse_constant=refused)
    assert record["recipe"]["controls"][0]["sigma"] == "inf"

"""PAG against diffusers' pipelines and guider, against its equation on every family, and its laws."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusion3PAGPipeline, StableDiffusionPAGPipeline, StableDiffusionXLPAGPipeline
from diffusers.guiders import PerturbedAttentionGuidance as Guider
from diffusers.hooks import LayerSkipConfig
from families import BUILDERS, build_flux, build_sd3, build_sdxl
from tiny import build_tiny
from weaker import CLOSE, PROMPT, TARGET, Watch, check_equation, guided_by, made

from promptweave import (
    LocalBlend,
    NoEffect,
    PerturbedAttentionGuidance,
    Replace,
    SemanticGuidance,
    edit,
    generate,
    load,
    noise_for,
    record,
    replay,
)
from promptweave.core.rows import NotRecorded

THEIRS = {
    "Stable Diffusion 1.x": (StableDiffusionPAGPipeline, build_tiny, "mid", "mid"),
    "an up layer": (StableDiffusionPAGPipeline, build_tiny, "up_self_1", "up_blocks.0.attentions.1"),
    "Stable Diffusion XL": (StableDiffusionXLPAGPipeline, build_sdxl, "mid", "mid"),
    "Stable Diffusion 3": (StableDiffusion3PAGPipeline, build_sd3, "stream_joint_2", "blocks.2"),
}


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("case", THEIRS)
def test_it_is_diffusers_pipeline(tokenizer, case, guidance):
    kind, build, ours, theirs = THEIRS[case]
    pipeline = build(tokenizer)
    unknown = {"image_encoder", "feature_extractor"} if build is build_sd3 else set()
    parts = {name: part for name, part in pipeline.components.items() if name not in unknown}
    options = {"requires_safety_checker": False} if build is build_tiny else {}
    pag = kind(**parts, **options, pag_applied_layers=theirs)
    pag.set_progress_bar_config(disable=True)
    model = load(pipeline)
    noise = noise_for(model, 0)
    control = PerturbedAttentionGuidance(2.5, ours)
    run = made(model, control, guidance=guidance)
    length = {"max_sequence_length": model.t5_length} if build is build_sd3 else {}
    wanted = pag(
        PROMPT, latents=noise, num_inference_steps=3, guidance_scale=guidance, pag_scale=2.5, output_type="latent",
        **length,
    ).images  # fmt: skip
    torch.testing.assert_close(run.latents[0], wanted, rtol=1e-4, atol=1e-4)
    assert (run.latents - made(model, guidance=guidance).latents).abs().max() > 1e-2


def test_it_is_diffusers_guider(tiny64):
    """A prediction, by their hooks on the same network."""
    layer = LayerSkipConfig(
        [0], "mid_block.attentions.0.transformer_blocks", skip_attention=False, skip_attention_scores=True,
        skip_ff=False,
    )  # fmt: skip
    guider = Guider(
        4.0, perturbed_guidance_scale=2.5, perturbed_guidance_start=0.0, perturbed_guidance_stop=1.0,
        perturbed_guidance_config=layer,
    )  # fmt: skip
    run = made(tiny64, PerturbedAttentionGuidance(2.5), Watch(), guidance=4.0, steps=1)
    theirs = guided_by(guider, tiny64)
    torch.testing.assert_close(run.hooks[1].seen[0].guided[0], theirs, **CLOSE)


# ---- the equation, written out with whole matrices


def alone(site, q, k):
    """Scores where pixels see themselves, and in joint layers the text."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    begin = 0 if site.image is None else site.image.start
    for pixel in range(begin, begin + site.queries):
        own = scores[..., pixel, pixel].clone()
        scores[..., pixel, begin : begin + site.queries] = -torch.inf
        scores[..., pixel, pixel] = own
    return scores


@pytest.mark.parametrize("family", BUILDERS)
def test_it_is_its_equation_on_every_family(family, tokenizer, monkeypatch):
    model = load(BUILDERS[family](tokenizer).to(torch.float64))
    names = check_equation(model, PerturbedAttentionGuidance(2.0), 2.0, alone, monkeypatch)
    own = {
        "StableDiffusion3Pipeline": ["stream_joint_2"], "FluxPipeline": ["stream_single_0"],
        "StableDiffusionXLPipeline": ["mid_self_0_res_8", "mid_self_1_res_8"],
    }  # fmt: skip
    assert names == own.get(type(model.pipeline).__name__, ["mid_self_0_res_8"])


@pytest.mark.parametrize("scheduler", ["heun", "dpm++-single", "pndm", "euler"])
def test_every_evaluation_of_a_solver_is_guided(tokenizer, scheduler, monkeypatch):
    model = load(build_tiny(tokenizer).to(torch.float64), scheduler=scheduler)
    check_equation(model, PerturbedAttentionGuidance(2.0, ("up_self_0", "mid")), 2.0, alone, monkeypatch, steps=4)


@pytest.mark.parametrize("family", ["Stable Diffusion 3.5 medium", "FLUX.1-dev"])
def test_all_layers_of_a_transformer(family, tokenizer, monkeypatch):
    """Layers over the image alone (those of 3.5 medium) get the identity, beside the joint ones."""
    model = load(BUILDERS[family](tokenizer).to(torch.float64))
    names = check_equation(model, PerturbedAttentionGuidance(1.0, "stream"), 1.0, alone, monkeypatch)
    assert names == sorted(site.name for site in model.sites((16, 16)))


# ---- beside other controls, and what it leaves alone


def test_beside_prompt_to_prompt(tiny64):
    """Injection reads the perturbed source in the perturbed prediction: equal prompts stay equal, and so do rows."""
    control = PerturbedAttentionGuidance(2.0, ("up", "mid"))
    both = made(tiny64, Replace(1.0, 1.0), control, prompts=(PROMPT, PROMPT, TARGET)).latents
    torch.testing.assert_close(both[1], both[0], **CLOSE)
    torch.testing.assert_close(both[0], made(tiny64, control).latents[0], **CLOSE)
    for other in (made(tiny64, control, prompts=(TARGET,)).latents[0], both[0]):
        assert (both[2] - other).abs().max() > 1e-3


def test_only_the_prompts_asked_for(tiny64):
    control = PerturbedAttentionGuidance(2.0, prompts=(1,))
    one = made(tiny64, control, prompts=(PROMPT, PROMPT)).latents
    torch.testing.assert_close(one[0], made(tiny64).latents[0], **CLOSE)
    torch.testing.assert_close(one[1], made(tiny64, PerturbedAttentionGuidance(2.0)).latents[0], **CLOSE)
    assert (one[1] - one[0]).abs().max() > 1e-3


def test_a_window_and_a_sum_of_two(tiny64):
    early = made(tiny64, PerturbedAttentionGuidance(2.0, window=(0.25, 0.5)), Watch(), steps=4)
    assert early.reports[0] == {"steps": 1, "layers": ["mid_self_0_res_8"]}
    twice = made(tiny64, *[PerturbedAttentionGuidance(1.0, window=(0.25, 0.5))] * 2, steps=4)
    torch.testing.assert_close(twice.latents, early.latents, **CLOSE)


def test_beside_semantic_guidance_and_a_blend(tiny):
    controls = [
        Replace(), LocalBlend("dog", start=0), SemanticGuidance({"a lion": 4}, warmup=0), PerturbedAttentionGuidance(),
    ]  # fmt: skip
    result = edit(PROMPT, TARGET, model=tiny, controls=controls, steps=2, compare=True, maps=True)
    assert result.report["controls"][3]["steps"] == 2


def test_a_flow_models_weights_stay_in_the_perturbed_prediction(tokenizer):
    """What controls put around the soft-max of a joint layer is in both predictions, and does not become guidance."""
    model = load(build_sd3(tokenizer).to(torch.float64))
    control = PerturbedAttentionGuidance(2.0, "stream_joint_2")
    edited = made(model, Replace(joint=1.0), control, Watch(), prompts=(PROMPT, PROMPT), steps=2)
    torch.testing.assert_close(edited.latents[1], edited.latents[0], **CLOSE)


def test_recordings(tiny):
    recording = record(PROMPT, model=tiny, steps=2)
    alone = edit(recording, TARGET, model=tiny, controls=[PerturbedAttentionGuidance()])
    free = edit(PROMPT, TARGET, model=tiny, steps=2, controls=[PerturbedAttentionGuidance(prompts=(1,))])
    torch.testing.assert_close(alone.sample.latents[1], free.sample.latents[1], rtol=1e-4, atol=1e-4)
    with pytest.raises(NotRecorded, match="further predictions"):
        edit(recording, TARGET, model=tiny, controls=[Replace(), PerturbedAttentionGuidance()])


def test_what_cannot_act_is_said(tiny):
    for control in (PerturbedAttentionGuidance(0), PerturbedAttentionGuidance(layers=()),
                    PerturbedAttentionGuidance(window=0)):  # fmt: skip
        with pytest.raises(NoEffect, match="a scale above 0, a layer and one of the 2 steps"):
            generate(PROMPT, model=tiny, controls=[control], steps=2)
    for name in ("middle", "mid_cross_0", "up_self_1_re", "u"):
        with pytest.raises(ValueError, match=rf"'_': down_self_0_res_16, .*, mid_self_0_res_8, .* Received '{name}'"):
            generate(PROMPT, model=tiny, controls=[PerturbedAttentionGuidance(layers=("mid", name))], steps=2)
    with pytest.raises(ValueError, match="prompts must name rows 0 to 0"):
        generate(PROMPT, model=tiny, controls=[PerturbedAttentionGuidance(prompts=(1,))], steps=2)


def test_layers_of_a_transformer_are_listed(tokenizer):
    with pytest.raises(ValueError, match="'_': stream_double_0, stream_double_1, stream_single_0"):
        generate(PROMPT, model=load(build_flux(tokenizer)), controls=[PerturbedAttentionGuidance(layers="blocks.1")])


def test_a_saved_picture_is_made_again(tiny_folder, tmp_path):
    controls = [PerturbedAttentionGuidance(2.0, ("mid", "up_self_1"), (0, 0.5))]
    result = generate(PROMPT, model=str(tiny_folder), steps=2, controls=controls)
    result.save_picture(tmp_path / "made.png", 0, 0)
    again = replay(tmp_path / "made.png")
    assert again.result.recipe.controls == tuple(controls) and again.matches

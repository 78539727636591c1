"""SEGA against diffusers' pipeline of it, and its invariants."""

from __future__ import annotations

import pytest
import torch
from diffusers.pipelines.deprecated.semantic_stable_diffusion import SemanticStableDiffusionPipeline
from families import build_sd3, build_sdxl
from tiny import build_tiny

from promptweave import NoEffect, Recipe, SemanticGuidance, edit, generate, load, noise_for, record, sample
from promptweave.apps.cli import main
from promptweave.methods.semantic_guidance import attended, largest

PROMPT, CONCEPT = "a photo of a cat riding a bike", "a lion wearing a crown"


def made(model, *controls, prompts=(PROMPT,), steps: int = 6, images: int = 1):
    noise = noise_for(model, 0, images).to(model.dtype)
    return sample(model, list(prompts), noise=noise, steps=steps, guidance=3.0, controls=list(controls))


@pytest.mark.parametrize("strengths", [{CONCEPT: 4.0}, {CONCEPT: -4.0}, {CONCEPT: 4.0, "a black cat": -2.0}])
def test_it_is_diffusers_pipeline(tokenizer, strengths):
    """Several concepts add up: each has weight 1."""
    pipeline = build_tiny(tokenizer)
    theirs = SemanticStableDiffusionPipeline(
        **{name: part for name, part in pipeline.components.items() if name != "image_encoder"},
        requires_safety_checker=False,
    )
    theirs.set_progress_bar_config(disable=True)
    model = load(pipeline)
    control = SemanticGuidance(strengths, warmup=1 / 3, threshold=0.8, momentum=0.3, beta=0.6)
    ours = made(model, control)
    values = list(strengths.values())
    wanted = theirs(
        PROMPT, latents=noise_for(model, 0), num_inference_steps=6, guidance_scale=3.0, editing_prompt=list(strengths),
        reverse_editing_direction=[value < 0 for value in values], edit_guidance_scale=[abs(value) for value in values],
        edit_warmup_steps=[2] * len(values), edit_threshold=[0.8] * len(values), edit_momentum_scale=0.3,
        edit_mom_beta=0.6, output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(ours.latents[0], wanted, rtol=1e-4, atol=1e-4)
    assert (ours.latents - made(model).latents).abs().max() > 1e-2


@pytest.mark.parametrize("t", [801, 800])
def test_the_masks_are_those_of_ledits(t):
    """Smoothed, cut at the quantile, enlarged to the nearest cell; the noise's mask is of the sum over channels."""
    generator = torch.Generator().manual_seed(0)
    move, heat = torch.randn(2, 3, 4, 12, 10, generator=generator), torch.rand(2, 3, 6, 5, generator=generator)
    line = torch.tensor([0.21194, 0.57612, 0.21194])  # exp(-(x / 2 sigma)^2) at sigma 0.5, over its sum
    for prompt in range(2):
        for image in range(3):
            smooth = torch.zeros(6, 5)
            for y in range(6):
                for x in range(5):
                    for dy in (-1, 0, 1):
                        for dx in (-1, 0, 1):
                            row = 5 - abs(5 - abs(y + dy))  # reflected at the edges
                            column = 4 - abs(4 - abs(x + dx))
                            smooth[y, x] += line[dy + 1] * line[dx + 1] * heat[prompt, image, row, column]
            attention = smooth >= smooth.flatten().quantile(0.7)
            attention = attention.repeat_interleave(2, 0).repeat_interleave(2, 1)
            summed = move[prompt, image].abs().sum(0)
            noise = summed >= summed.flatten().quantile(0.7)
            wanted = attention if t > 800 else attention & noise
            assert torch.equal(attended(move, heat, 0.7, t)[prompt, image, 0], wanted)
            assert 0 < wanted.sum() < wanted.numel()


def test_sega_masks_each_channel_by_itself():
    x = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(1))
    kept = largest(x, 0.8)
    for channel in range(2):
        assert torch.equal(kept[channel], x[channel] >= x[channel].flatten().quantile(0.8))
    assert kept.sum((-2, -1)).tolist() == [7, 7]


def test_only_the_targets_move_and_by_nothing_if_the_warm_up_is_all_but_over(tiny64):
    control = SemanticGuidance({CONCEPT: 4}, warmup=0)
    plain = made(tiny64, prompts=(PROMPT, PROMPT)).latents
    edited = made(tiny64, control, prompts=(PROMPT, PROMPT)).latents
    torch.testing.assert_close(edited[0], plain[0], rtol=1e-9, atol=1e-9)
    assert (edited[1] - plain[1]).abs().max() > 1e-3
    torch.testing.assert_close(edited[1], made(tiny64, control).latents[0], rtol=1e-9, atol=1e-9)


def test_several_pictures_and_concepts(tiny64):
    concepts = {CONCEPT: 4.0, "a black cat": -2.0, "ignored": 0.0}
    control = SemanticGuidance(concepts, warmup=0, momentum=0)
    two = made(tiny64, control, images=2)
    torch.testing.assert_close(two.latents[:, :1], made(tiny64, control).latents, rtol=1e-7, atol=1e-7)
    assert two.reports[0]["steps"] == 6 and two.reports[0]["area"] == pytest.approx(0.1, abs=0.02)


def test_attention_masks_move_less(tiny64):
    areas = [made(tiny64, SemanticGuidance({CONCEPT: 4}, attention=on)).reports[0]["area"] for on in (False, True)]
    assert 0 < areas[1] < areas[0]


@pytest.mark.parametrize("build", [build_sdxl, build_sd3])
def test_other_families(build, tokenizer):
    model = load(build(tokenizer))
    control = SemanticGuidance({CONCEPT: 4}, warmup=0, attention=True)
    moved, plain = (made(model, *controls, steps=3).latents for controls in ([control], []))
    assert moved.isfinite().all() and (moved - plain).abs().max() > 1e-3


def test_on_a_recording_and_on_a_given_picture(tiny):
    control = SemanticGuidance({CONCEPT: 4}, warmup=0)
    recording = record(PROMPT, model=tiny, steps=3)
    again = edit(recording, PROMPT, model=tiny, controls=[control])
    joint = edit(PROMPT, PROMPT, model=tiny, steps=3, controls=[control])
    torch.testing.assert_close(again.sample.latents, joint.sample.latents, rtol=1e-4, atol=1e-4)
    given = edit(PROMPT, PROMPT, model=tiny, steps=3, controls=[control], image=joint.source)
    assert (given.sample.latents[1] - given.sample.latents[0]).abs().max() > 1e-3
    assert generate(PROMPT, model=tiny, steps=3, controls=[control]).report["controls"][0]["steps"] == 3


@pytest.mark.parametrize(
    ("control", "error", "message"),
    [
        (SemanticGuidance({}), NoEffect, "a concept with a strength"),
        (SemanticGuidance({"a lion": 0}), NoEffect, "a concept with a strength"),
        (SemanticGuidance({"a lion": 1}, warmup=1), NoEffect, "after the warm-up"),
        (SemanticGuidance({"a lion": 1}, threshold=1), ValueError, "below 1"),
        (SemanticGuidance({"a lion": 1}, targets=(3,)), ValueError, "must name rows"),
    ],
)
def test_what_cannot_be(tiny, control, error, message):
    with pytest.raises(error, match=message):
        made(tiny, control)


def test_without_guidance_there_is_nothing_to_go_from(tiny):
    with pytest.raises(ValueError, match="Raise guidance above 1"):
        sample(tiny, [PROMPT], noise=noise_for(tiny, 0), steps=2, guidance=1, controls=[SemanticGuidance({"a": 1})])


def test_in_a_recipe_and_from_the_command_line(tiny_folder, tmp_path, capsys):
    recipe = Recipe(PROMPT, (PROMPT,), (SemanticGuidance({CONCEPT: 4.0}, attention=True),))
    assert Recipe.from_dict(recipe.as_dict()) == recipe
    options = ["--model", str(tiny_folder), "--steps", "3", "-o", str(tmp_path / "made")]
    with pytest.raises(SystemExit) as end:
        main(["sega", PROMPT, "--concept", f"{CONCEPT}=4", "--concept", "a dog", "--away", "snow", *options])
    assert end.value.code == 0 and "SemanticGuidance: steps" in capsys.readouterr().out
    assert (tmp_path / "made" / "edit.png").is_file()
    with pytest.raises(SystemExit) as end:
        main(["sega", PROMPT, *options, "--force"])
    assert end.value.code == 2 and "--concept" in capsys.readouterr().err

"""Skip-Layer Guidance against diffusers' pipeline and guider and its equation written out, and its invariants."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.guiders import SkipLayerGuidance as Guider
from families import build_flux, build_sd3, build_sdxl, louder
from tiny import build_tiny
from torch import Tensor

from promptweave import (
    Control,
    Hooks,
    NoEffect,
    Recipe,
    Replace,
    SkipLayerGuidance,
    Window,
    edit,
    load,
    noise_for,
    record,
)
from promptweave import sample as run_sample
from promptweave.core.control import Predictions, Run
from promptweave.core.rows import NotRecorded
from promptweave.methods.skip_layer import acting

PROMPT, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
FAMILIES = {
    "UNet": build_tiny, "SDXL": build_sdxl, "SD3": build_sd3,
    "SD3.5": lambda tokenizer: build_sd3(tokenizer, dual=(0, 1)), "FLUX": build_flux,
}  # fmt: skip
LEFT_OUT = {"UNet": (2, 3), "SDXL": (1, 4), "SD3": (1, 3), "SD3.5": (1, 2), "FLUX": (1, 2)}  # the last of SD3 too


@dataclass(frozen=True)
class Watch(Control):
    """Keeps every prediction that comes by."""

    def bind(self, run: Run) -> Hooks:
        return Watching()


@dataclass
class Watching(Hooks):
    made: list[Predictions] = field(default_factory=list)

    def prediction(self, step, made):
        self.made.append(made)
        return made.guided


def sampled(model, *controls, prompts=(PROMPT,), steps=2, guidance=3.0, images=1):
    noise = noise_for(model, 0, images).to(model.dtype)
    return run_sample(model, list(prompts), noise=noise, steps=steps, guidance=guidance, controls=list(controls))


def double(build, tokenizer):
    return load(build(tokenizer).to(torch.float64))


@contextmanager
def without(model, layers: tuple[int, ...]):
    """The network whose blocks hand on what they get."""
    network = model.transformer if hasattr(model, "transformer") else model.unet
    paths = list(dict.fromkeys(site.path.rpartition(".")[0] for site in model.sites((16, 16))))
    blocks = [network.get_submodule(paths[layer]) for layer in layers]

    def through(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        alone = network is getattr(model, "unet", None)
        return hidden_states if alone else (kwargs["encoder_hidden_states"], hidden_states)

    before = [block.forward for block in blocks]
    try:
        for block in blocks:
            block.forward = through
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            block.forward = forward


# ---- diffusers


def deep(tokenizer) -> Any:
    """Stable Diffusion 3 with twelve blocks, so that there are blocks 7, 8 and 9."""
    pipeline = build_sd3(tokenizer, places=256)
    torch.manual_seed(6)
    pipeline.transformer = SD3Transformer2DModel.from_config({**pipeline.transformer.config, "num_layers": 12})
    louder(pipeline.transformer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    ("steps", "options"), [(12, {}), (10, {"scale": 1.3, "layers": (0, 11), "window": (0.3, 0.7)})]
)
def test_it_is_diffusers_pipeline(tokenizer, steps, options):
    pipeline = deep(tokenizer).to(torch.float64)
    control, model = SkipLayerGuidance(**options), load(pipeline)
    noise = noise_for(model, 0).double()
    ours = run_sample(model, [PROMPT], noise=noise, steps=steps, guidance=3.0, controls=[control])
    start, stop = control.window
    wanted = pipeline(
        PROMPT, latents=noise, num_inference_steps=steps, guidance_scale=3.0, output_type="latent",
        max_sequence_length=model.t5_length, skip_guidance_layers=list(control.layers),
        skip_layer_guidance_scale=control.scale, skip_layer_guidance_start=start, skip_layer_guidance_stop=stop,
    ).images  # fmt: skip
    torch.testing.assert_close(ours.latents[0], wanted, rtol=1e-12, atol=1e-12)
    assert ours.reports[0]["steps"] == len([i for i in range(steps) if steps * start < i < steps * stop]) > 0
    plain = run_sample(model, [PROMPT], noise=noise, steps=steps, guidance=3.0)
    assert (ours.latents - plain.latents).abs().max() > 1e-2


@pytest.mark.parametrize("guidance", [3.0, 1.0])
def test_it_is_the_formula_of_diffusers_guider(tokenizer, guidance):
    """With guidance off, of its original formulation, which starts from e_c; its window starts a step late."""
    model = double(FAMILIES["SD3"], tokenizer)
    control = SkipLayerGuidance(2.0, (1, 3), window=1.0)
    before, slg, after = sampled(model, Watch(), control, Watch(), guidance=guidance).hooks
    with without(model, (1, 3)):
        skipped = sampled(model, Watch(), guidance=guidance).hooks[0].made[0].cond
    guider = Guider(
        guidance if guidance != 1 else 0.0, 2.0, skip_layer_guidance_layers=[1, 3],
        use_original_formulation=guidance == 1,
    )  # fmt: skip
    first = before.made[0]
    uncond = first.cond if first.uncond is None else first.uncond
    pred = guider.forward(first.cond, uncond, skipped).pred
    torch.testing.assert_close(after.made[0].guided, pred, **CLOSE)
    assert (first.uncond is None) == (guidance == 1) and len(slg.steps) == 2


def test_the_window_is_the_published_one():
    """Compared in whole numbers, hundredths of steps, without rounding."""
    for count in range(1, 101):
        for start, stop in ((1, 20), (10, 50), (29, 57), (25, 100)):
            wanted = {i for i in range(count) if start * count < 100 * i < stop * count}
            assert acting(Window(start / 100, stop / 100), count) == wanted
        assert acting(Window(0, 0.5), count) == {i for i in range(count) if 2 * i < count}  # ours holds the first step
        assert acting(Window(0, 1), count) == set(range(count))


# ---- the equation, in every family


@pytest.mark.parametrize("guidance", [3.0, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_equation_at_every_step(family, guidance, tokenizer, monkeypatch):
    """e <- e_guided + s (e_c - e_s), e_s by a pass of its own of the network without the blocks."""
    model, layers = double(FAMILIES[family], tokenizer), LEFT_OUT[family]
    inputs: list[tuple[Tensor, Any]] = []
    predict = type(model).predict

    def logged(self, z, t, *rest, **options):
        inputs.append((z[-1:], t))
        return predict(self, z, t, *rest, **options)

    monkeypatch.setattr(type(model), "predict", logged)
    made = sampled(model, Watch(), SkipLayerGuidance(1.7, layers, 1.0), Watch(), steps=3, guidance=guidance)
    monkeypatch.undo()
    text = model.encode([PROMPT], [""])
    before, after = made.hooks[0].made, made.hooks[2].made
    assert len(inputs) == len(before) == made.reports[1]["steps"] == 3
    for (z, t), old, new in zip(inputs, before, after, strict=True):
        with without(model, layers), torch.no_grad():
            skipped = model.predict(z, t, text.cond, pooled=text.pooled, guidance=guidance)[None]
        torch.testing.assert_close(new.guided, old.guided + 1.7 * (old.cond - skipped), **CLOSE)
        assert (old.cond - skipped).abs().max() > 1e-3


def test_the_skipped_prediction_is_under_prompt_to_prompt(tiny64):
    """The controls act in the network without the blocks as in the whole one."""
    prompts, edits = (PROMPT, TARGET), Replace(1.0, 1.0, self_grid=256)
    made = sampled(tiny64, Watch(), edits, SkipLayerGuidance(2.0, (2, 3), 1.0), Watch(), prompts=prompts).hooks
    with without(tiny64, (2, 3)):
        skipped = sampled(tiny64, edits, Watch(), prompts=prompts).hooks[1].made[0].cond
        free = sampled(tiny64, Watch(), prompts=prompts).hooks[0].made[0].cond
    old, new = made[0].made[0], made[3].made[0]
    torch.testing.assert_close(new.guided, old.guided + 2.0 * (old.cond - skipped), **CLOSE)
    assert (free[1] - skipped[1]).abs().max() > 1e-4


def test_it_acts_on_all_prompts_or_those_named(tiny64):
    both = sampled(tiny64, SkipLayerGuidance(2.0, (3,), 1.0), prompts=(PROMPT, TARGET), images=2).latents
    for row, prompt in enumerate((PROMPT, TARGET)):
        alone = sampled(tiny64, SkipLayerGuidance(2.0, (3,), 1.0), prompts=(prompt,), images=2).latents[0]
        torch.testing.assert_close(both[row], alone, **CLOSE)
    plain = sampled(tiny64, prompts=(PROMPT, TARGET), images=2).latents
    one = sampled(tiny64, SkipLayerGuidance(2.0, (3,), 1.0, prompts=(1,)), prompts=(PROMPT, TARGET), images=2).latents
    torch.testing.assert_close(one[0], plain[0], **CLOSE)
    torch.testing.assert_close(one[1], both[1], **CLOSE)


def test_a_further_pass_is_made_in_the_window_alone(tiny, monkeypatch):
    rows: list[int] = []
    predict = type(tiny).predict

    def counting(self, z, *rest, **options):
        rows.append(len(z))
        return predict(self, z, *rest, **options)

    monkeypatch.setattr(type(tiny), "predict", counting)
    sampled(tiny, SkipLayerGuidance(2.0, (3,), (0.2, 0.6)), steps=5)
    assert rows == [2, 2, 3, 2, 2]  # 1 < i < 3


def test_on_a_recording_and_on_a_given_picture(tiny):
    """A recorded source has no further prediction: its targets are guided, unless a control reads it there."""
    control = SkipLayerGuidance(2.0, (2, 3), 1.0)
    recording = record(PROMPT, model=tiny, steps=3)
    again = edit(recording, TARGET, model=tiny, controls=[control])
    joint = edit(PROMPT, TARGET, model=tiny, steps=3, controls=[control])
    torch.testing.assert_close(again.sample.latents[1], joint.sample.latents[1], rtol=1e-4, atol=1e-4)
    with pytest.raises(NotRecorded, match="further predictions"):
        edit(recording, TARGET, model=tiny, controls=[Replace(), control])
    given = edit(PROMPT, TARGET, model=tiny, steps=3, controls=[Replace(), control], image=joint.source)
    assert (given.sample.latents[1] - given.sample.latents[0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, ValueError, r"numbers of transformer blocks, of which this network has 7: 0 to 6"),
        ({"layers": (-1,)}, ValueError, "numbers of transformer blocks"),
        ({"scale": -1, "layers": (3,)}, ValueError, "scale must be at least 0"),
        ({"scale": 0, "layers": (3,)}, NoEffect, "scale above 0"),
        ({"layers": ()}, NoEffect, "a layer"),
        ({"layers": (3,), "window": (0.2, 0.5)}, NoEffect, "one of the 2 steps"),
        ({"layers": (3,), "window": 1.0, "prompts": (1,)}, ValueError, "prompts"),
    ],
)
def test_mistakes_are_told(tiny, options, error, match):
    with pytest.raises(error, match=match):
        sampled(tiny, SkipLayerGuidance(**options))


def test_a_recipe_keeps_it():
    recipe = Recipe(PROMPT, (TARGET,), (SkipLayerGuidance(2, (3, 4), (0.1, 0.4), prompts=(1,)),))
    assert Recipe.from_dict(recipe.as_dict()) == recipe

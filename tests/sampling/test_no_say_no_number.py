"""Guidance under which no word has a say, and values that are no numbers: both end in a sentence."""

from __future__ import annotations

import pytest
import torch
from families import BUILDERS, build_lcm, build_sdxl, build_turbo
from tiny import build_tiny

import promptweave as pw
from promptweave.core.control import Control, Hooks, NoEffect
from promptweave.core.finite import NotFinite
from promptweave.editing.who_reads import Unread
from promptweave.inversion.ddim import invert
from promptweave.models.load import load
from promptweave.models.solvers import few_steps

S, T = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
NAN, STEPS = float("nan"), 3


@pytest.mark.parametrize("family", list(BUILDERS))
def test_guidance_0_is_none_for_distilled_models_and_no_edit_for_others(family, tokenizer):
    model = load(BUILDERS[family](tokenizer))
    distilled = family in ("Turbo", "LCM", "FLUX.1-dev", "FLUX.1-schnell")
    assert model.distilled is distilled
    if not distilled:
        with pytest.raises(NoEffect, match="guidance 0.*Give 1 for no guidance"):
            pw.generate(S, model=model, steps=1, guidance=0)
        return
    made = pw.sample(model, [S, T], noise=pw.noise_for(model, 0), steps=1, guidance=0).latents
    assert not torch.equal(made[0], made[1])  # the words act
    if model.guided:
        assert torch.equal(made, pw.sample(model, [S, T], noise=pw.noise_for(model, 0), steps=1, guidance=1).latents)


@pytest.mark.parametrize("build", [build_turbo, build_lcm])
def test_guidance_0_is_that_of_diffusers(build, tokenizer):
    model = load(build(tokenizer))
    model.pipeline.set_progress_bar_config(disable=True)
    noise = pw.noise_for(model, 0)
    wanted = model.pipeline(
        S, latents=noise, num_inference_steps=1, guidance_scale=0.0, output_type="latent", height=32, width=32,
        generator=torch.Generator().manual_seed(0), **({"original_inference_steps": 50} if build is build_lcm else {}),
    ).images  # fmt: skip
    ours = pw.sample(model, [S], noise=noise, steps=1, guidance=0).latents[0]
    if build is build_lcm:  # its last step adds no noise
        assert torch.equal(ours, wanted)
    else:
        assert ours.isfinite().all() and not torch.equal(ours, noise)


def test_every_call_that_reads_a_prompt_refuses_to_ignore_it(tiny):
    settings = {"model": tiny, "steps": 2, "guidance": 0}
    picture = torch.zeros(32, 32, 3, dtype=torch.uint8).numpy()
    calls = [
        lambda: pw.edit(S, T, **settings), lambda: pw.edit(S, weights={"cat": 2}, **settings),
        lambda: pw.edit(S, T, image=picture, **settings), lambda: pw.record(S, **settings),
        lambda: pw.record(S, image=picture, **settings), lambda: pw.word_maps(S, **settings),
        lambda: pw.sweep(S, T, rows=("guidance", (0, 3)), columns=("cross", (0.5, 1)), model=tiny, steps=1),
        lambda: pw.edit(S, T, controls=[pw.MasaCtrl(0.0, 0)], **settings),
        lambda: pw.generate(S, controls=[pw.AttendAndExcite(("cat", "bike"))], **settings),
        lambda: pw.generate(S, controls=[pw.SemanticGuidance({"snow": 1}, warmup=0)], **settings),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(NoEffect, match="has a say"):
            call()
    assert pw.generate(S, controls=[pw.PerturbedAttentionGuidance()], compare=True, **settings).plain is not None


def test_a_target_that_flow_edit_would_not_read(tokenizer):
    model = load(BUILDERS["Stable Diffusion 3"](tokenizer))
    with pytest.raises(NoEffect, match="target_guidance of 0.*has a say"):
        pw.edit(S, T, model=model, kind="flow", target_guidance=0, steps=3)


def test_a_negative_prompt_that_nothing_reads(tiny, tokenizer):
    for model, guidance in ((tiny, 1), (load(build_turbo(tokenizer)), 0), (load(build_lcm(tokenizer)), 8)):
        with pytest.raises(Unread, match="negative.*Leave the negative prompt out"):
            pw.edit(S, T, model=model, negative="snow", guidance=guidance, steps=1)


def test_a_distilled_model_is_known_by_its_last_name(tokenizer):
    assert few_steps(["/home/lcm/turbo/sd15"], None) is None
    assert few_steps(["/cache/models--stabilityai--sd-turbo/snapshots/0123"], None) == 4
    pipeline = build_tiny(tokenizer)
    pipeline.register_to_config(_name_or_path="stabilityai/sd-turbo")
    assert load(pipeline).defaults == (4, 1.0) and load(pipeline).distilled


class Wild(Control):
    """Gives latents that are no numbers before the second step."""

    def bind(self, run):
        class Its(Hooks):
            def before_step(self, step, z, probe):
                return z * NAN if step.index == 1 else z

        return Its()


def broken(tokenizer, path: str):
    pipeline = build_tiny(tokenizer)
    part, _, name = path.partition(".")
    getattr(pipeline, part).get_parameter(name).data[:] = NAN
    return load(pipeline)


def test_no_numbers_name_step_cause_and_cure(tiny, tokenizer):
    settings = {"steps": STEPS, "guidance": 3}
    network = broken(tokenizer, "unet.conv_out.weight")
    for call in (lambda: pw.generate(S, model=network, **settings), lambda: pw.edit(S, T, model=network, **settings)):
        with pytest.raises(NotFinite, match=rf"prompt 1, '{S}'.*from step 1 of 3 on: the network's output is not"):
            call()
    with pytest.raises(NotFinite, match="from step 2 of 3 on: what Wild or"):
        pw.generate(S, model=tiny, controls=[Wild()], **settings)
    text = broken(tokenizer, "text_encoder.final_layer_norm.weight")
    with pytest.raises(NotFinite, match="the text encoder's output is not"):
        pw.generate(S, model=text, **settings)
    decoder = broken(tokenizer, "vae.decoder.conv_out.weight")
    with pytest.raises(NotFinite, match="image after the last step.*AutoencoderKL.*another autoencoder"):
        pw.generate(S, model=decoder, **settings)
    encoder = broken(tokenizer, "vae.encoder.conv_out.weight")
    with pytest.raises(NotFinite, match="latents of the image"):
        pw.edit(S, T, model=encoder, image=torch.zeros(32, 32, 3, dtype=torch.uint8).numpy(), **settings)
    with pytest.raises(NotFinite, match="step 1 of 3 of the inversion"):
        invert(network, pw.noise_for(network, 0), S, steps=STEPS)


def test_the_cure_is_that_of_the_precision(tokenizer):
    pipeline = build_tiny(tokenizer).to(torch.bfloat16)
    pipeline.unet.conv_out.weight.data[:] = NAN
    with pytest.raises(NotFinite, match="--dtype float32"):
        pw.generate(S, model=load(pipeline), steps=1)


def test_an_autoencoder_that_overflows_in_half_precision_decodes_in_single(tokenizer):
    """As the published one of SDXL does, whether or not its config says so."""
    model = load(build_sdxl(tokenizer))
    vae = model.pipeline.vae
    vae.decoder.mid_block.resnets[0].conv1.weight.data *= 2e5
    z = 100 * pw.noise_for(model, 0)
    wanted = model.to_image(z)
    vae.to(torch.float16)
    with torch.no_grad():
        assert not vae.decode(z.half() / vae.config.scaling_factor).sample.isfinite().all()
    got = model.to_image(z)
    assert vae.dtype == torch.float16
    torch.testing.assert_close(got, wanted, atol=0.02, rtol=0)


def test_training_stops_before_a_weight_is_lost(tmp_path):
    from promptweave.world.training import Diverged, Log, clip

    layer = torch.nn.Linear(2, 2)
    layer(torch.full((1, 2), NAN)).sum().backward()
    with pytest.raises(Diverged, match="gradient is nan.*--rate"):
        clip(layer)
    with pytest.raises(Diverged, match="loss of stage joint is inf after 8 samples"):
        Log(tmp_path)(stage="joint", samples=8, minutes=0.1, loss=float("inf"))
    assert not (tmp_path / "log.jsonl").exists()

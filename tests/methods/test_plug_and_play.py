"""Plug-and-Play features against the published procedure written out, and its invariants."""

from __future__ import annotations

import pytest
import torch
from families import build_sd3, build_sdxl
from tiny import build_tiny

from promptweave import NoEffect, PlugAndPlay, Recipe, edit, load, noise_for, record, sample
from promptweave.apps.cli import main
from promptweave.inversion.pinned import Pinned

SOURCE, TARGET, NEGATIVE = "a photo of a cat riding a bike", "a painting of a dog at night", "a black cat"
STEPS = 4


def made(model, control, negative: str = "", images: int = 1, progress=None):
    noise = noise_for(model, 0, images).to(model.dtype)
    controls = [] if control is None else [control]
    return sample(
        model, [SOURCE, TARGET], noise=noise, steps=STEPS, guidance=3.0, controls=controls, negative=negative,
        progress=progress,
    ).latents  # fmt: skip


class FirstRows:
    """Queries and keys of the first row for every row."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        q, k = (x[:1].expand_as(x) for x in (q, k))
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        return attn.to_out[0](((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2))


def published(model, path, block: str, layers: list[str], feature_steps: int, self_steps: int) -> torch.Tensor:
    """Batches of [source, target, target] under ["", negative, target], the source's latents from its path."""
    unet, schedule = model.unet, model.schedule()
    text = model.encode([TARGET], [NEGATIVE])
    context = torch.cat([model.encode([""], [""]).uncond, text.uncond, text.keys])
    z, processors = path[0], unet.attn_processors
    scheduler = model.pipeline.scheduler
    scheduler.set_timesteps(STEPS)
    for index, step in enumerate(schedule.steps(STEPS)):
        handle = None
        if index < feature_steps:
            handle = unet.get_submodule(block).register_forward_hook(lambda m, i, o: o[:1].expand_as(o).clone())
        if index < self_steps:
            for layer in layers:
                unet.get_submodule(layer).set_processor(FirstRows())
        with torch.no_grad():
            _, away, towards = unet(torch.cat([path[index], z, z]), step.t, encoder_hidden_states=context).sample
        z = scheduler.step((away + 3.0 * (towards - away))[None], step.t, z).prev_sample
        unet.set_attn_processor(dict(processors))
        if handle is not None:
            handle.remove()
    return z


def published_of_a_made_source(model, noise, block: str, layers: list[str], feature_steps: int, self_steps: int):
    """Each half of the target takes over the source's own: [source, target] under ["", negative] and the prompts."""
    unet, schedule = model.unet, model.schedule()
    text = model.encode([SOURCE, TARGET], [NEGATIVE] * 2)
    halves = torch.cat([model.encode([""], [""]).uncond, text.uncond[1:]]), text.keys
    z, processors = torch.cat([noise, noise]), unet.attn_processors
    scheduler = model.pipeline.scheduler
    scheduler.set_timesteps(STEPS)
    for index, step in enumerate(schedule.steps(STEPS)):
        handle = None
        if index < feature_steps:
            handle = unet.get_submodule(block).register_forward_hook(lambda m, i, o: o[:1].expand_as(o).clone())
        if index < self_steps:
            for layer in layers:
                unet.get_submodule(layer).set_processor(FirstRows())
        with torch.no_grad():
            away, towards = (unet(z, step.t, encoder_hidden_states=half).sample for half in halves)
        z = scheduler.step(away + 3.0 * (towards - away), step.t, z).prev_sample
        unet.set_attn_processor(dict(processors))
        if handle is not None:
            handle.remove()
    return z


def test_it_is_the_published_procedure(tiny64):
    """Of a source that was given, on its path: its features under an empty prompt, for both halves of the target."""
    path = [noise_for(tiny64, 0).double()]
    made(tiny64, None, progress=lambda step, z: path.append(z[0]))
    control = PlugAndPlay(0.75, 0.5, 0.5)
    ours = sample(
        tiny64, [SOURCE, TARGET], noise=path[0], steps=STEPS, guidance=3.0, controls=[Pinned(tuple(path)), control],
        negative=NEGATIVE,
    ).latents  # fmt: skip
    layers = [site.path for site in tiny64.sites((16, 16)) if site.kind == "self"]
    layers, block = layers[round(len(layers) / 2) :], "up_blocks.1.resnets.1.conv2"
    wanted = published(tiny64, path, block, layers, 3, 2)
    torch.testing.assert_close(ours[1], wanted, rtol=1e-6, atol=1e-6)
    for steps in ((0, 2), (3, 0)):  # both parts matter
        other = published(tiny64, path, block, layers, *steps)
        assert (other - wanted).abs().max() > 1e-3


def test_of_a_source_that_is_made_each_half_gives_its_own_features(tiny64):
    """The half with text those under the source's prompt, as in the authors' code; the other those under none."""
    noise = noise_for(tiny64, 0).double()
    ours = made(tiny64, PlugAndPlay(0.75, 0.5, 0.5), NEGATIVE)
    layers = [site.path for site in tiny64.sites((16, 16)) if site.kind == "self"]
    layers, block = layers[round(len(layers) / 2) :], "up_blocks.1.resnets.1.conv2"
    wanted = published_of_a_made_source(tiny64, noise, block, layers, 3, 2)
    torch.testing.assert_close(ours[:, 0], wanted, rtol=1e-6, atol=1e-6)


def test_the_feature_is_what_the_block_adds_and_nothing_stays_behind(tiny):
    before = dict(tiny.unet.attn_processors)
    seen: list[torch.Tensor] = []
    block = next(block for block in tiny.blocks() if block.name == "up_res_0_1")
    handle = tiny.unet.get_submodule(block.path).register_forward_hook(lambda m, i, o: seen.append(o))
    made(tiny, PlugAndPlay(0.25, 0.0, block=block.name))
    handle.remove()
    assert len(seen) == STEPS and len(seen[0]) == 4
    assert tiny.unet.attn_processors == before
    hooks = [hook for module in tiny.unet.modules() for hook in module._forward_hooks]
    assert not hooks


def test_the_source_is_what_it_is_without_the_control(tiny64):
    torch.testing.assert_close(made(tiny64, PlugAndPlay())[0], made(tiny64, None)[0], rtol=1e-7, atol=1e-8)


def test_images_stay_apart(tiny64):
    two = made(tiny64, PlugAndPlay(), images=2)
    torch.testing.assert_close(two[1, :1], made(tiny64, PlugAndPlay())[1], rtol=1e-7, atol=1e-7)


def test_with_text_vectors_and_in_half_precision(tokenizer):
    half = made(load(build_sdxl(tokenizer).to(torch.bfloat16)), PlugAndPlay())
    assert half.isfinite().all() and (half[0] - half[1]).abs().max() > 1e-3


def test_without_guidance_the_source_has_its_own_prompt(tiny):
    noise = noise_for(tiny, 0)
    run = [sample(tiny, [SOURCE, TARGET], noise=noise, steps=2, guidance=1, controls=c).latents[1]
           for c in ([], [PlugAndPlay()])]  # fmt: skip
    assert (run[0] - run[1]).abs().max() > 1e-3


def test_what_cannot_be(tiny, tokenizer):
    for control, error, message in (
        (PlugAndPlay(0.0, 0.0), NoEffect, "one of the 4 steps"),
        (PlugAndPlay(layers=2), ValueError, "layers of PlugAndPlay is a fraction"),
        (PlugAndPlay(block="up_res_9_0"), ValueError, "mid_res_0, mid_res_1, up_res_0_0"),
    ):
        with pytest.raises(error, match=message):
            made(tiny, control)
    with pytest.raises(ValueError, match="joint attention"):
        made(load(build_sd3(tokenizer)), PlugAndPlay())
    recording = record(SOURCE, model=tiny, steps=2)
    with pytest.raises(ValueError, match="without a recording"):
        edit(recording, TARGET, model=tiny, controls=[PlugAndPlay()])


def test_a_compiled_network_is_refused(tokenizer):
    pipeline = build_tiny(tokenizer)
    pipeline.unet.compile(backend="eager")
    with pytest.raises(ValueError, match=r"without torch\.compile"):
        made(load(pipeline), PlugAndPlay())


def test_in_a_recipe():
    recipe = Recipe(SOURCE, (TARGET,), (PlugAndPlay(0.5, (0.1, 0.4)),))
    assert Recipe.from_dict(recipe.as_dict()) == recipe


def test_from_the_command_line(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--model", str(tiny_folder), "--steps", "3", "-q"]
    with pytest.raises(SystemExit) as code:
        main(["generate", SOURCE, "-o", "photo", *options])
    for command in (
        ["pnp", SOURCE, TARGET, "--features", "0.5", "--compare"],
        ["pnp", SOURCE, TARGET],
        ["masactrl", SOURCE, TARGET, "--start", "0", "--inversion", "ddim"],
        ["translate", SOURCE, "--source", "cat", "--target", "dog"],
        ["edit", SOURCE, "a photo of a dog riding a bike", "--report"],
        ["sweep", SOURCE, "a photo of a dog riding a bike", "--cross", "0,1", "--self-attention", "0,1"],
    ):
        with pytest.raises(SystemExit) as code:
            main([*command, "--image", "photo/image.png", "-o", "-".join(command[:3:2]), "--force", *options])
        assert code.value.code == 0, capsys.readouterr().err
    with pytest.raises(SystemExit) as code:
        main(["record", SOURCE, "--image", "photo/image.png", "-o", "photo.safetensors", *options])
    assert code.value.code == 0
    with pytest.raises(SystemExit) as code:
        main(["edit", "--recording", "photo.safetensors", "a photo of a dog riding a bike", "-o", "again", *options])
    assert code.value.code == 0
    with pytest.raises(SystemExit) as code:
        main(["edit", SOURCE, "a photo of a dog riding a bike", "--image", "no.png", "-o", "no", *options])
    assert code.value.code == 2 and "There is no image at no.png" in capsys.readouterr().err

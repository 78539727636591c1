"""The nodes for ComfyUI, around tiny networks in ComfyUI's interfaces (`miniature`)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import miniature
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from families import build_flux, t5_tokenizer
from tiny import build_tiny

import promptweave as pw
from promptweave.models.base import Model, ModelError
from promptweave.models.flux import FluxModel
from promptweave.models.unet import UNetModel
from promptweave.words.lengths import PromptTooLong

nodes, ComfyModel, real = miniature.pack.nodes, miniature.pack.comfy_model.ComfyModel, miniature.real
SOURCE, SWAP = "a black cat next to a red car", "a black dog next to a red car"
RUN = {"seed": 3, "steps": 2, "cfg": 3.0, "width": 32, "height": 32, "negative": ""}
TOLD = {"seed": 3, "steps": 2, "guidance": 3.0, "size": (32, 32)}


@pytest.fixture(autouse=True)
def noted(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    return miniature.install(monkeypatch)


@pytest.fixture(scope="module")
def sd(tokenizer: Any) -> tuple[Any, tuple[Any, ...]]:
    """A model of the library, and the same weights as MODEL, CLIP and VAE."""

    def pipeline() -> Any:
        made = build_tiny(tokenizer)
        made.scheduler = DDIMScheduler.from_config(
            made.scheduler.config, set_alpha_to_one=True, timestep_spacing="trailing"
        )
        return made

    other = pipeline()
    loaded = miniature.model_of(UNetModel(other, "tiny")), real.PipelineClip(other), real.PipelineVae(other.vae)
    return UNetModel(pipeline(), "tiny"), loaded


@pytest.fixture(scope="module")
def flux(tokenizer: Any) -> tuple[Any, tuple[Any, ...]]:
    reader = t5_tokenizer(256)

    def pipeline() -> Any:
        made = build_flux(tokenizer)
        made.register_modules(tokenizer_2=reader)
        made.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=1.15, max_shift=1.15)
        return made

    other = pipeline()
    network = FluxModel(other, "tiny-flux")
    return FluxModel(pipeline(), "tiny-flux"), (
        miniature.model_of(network), real.PipelineClip(other), real.PipelineVae(other.vae)
    )  # fmt: skip


def edited(loaded: Any, target: str, options: Any = None, **changes: Any) -> Any:
    given = {**RUN, "kind": "auto", "maps": False, "scheduler": "simple", **changes}
    return nodes.Edit().run(*loaded, SOURCE, target, options=options, **given)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


BLEND = {"blend": ["cat", "dog"], "threshold": 0.6, "blend_start": 0.2}


@pytest.mark.parametrize(
    ("target", "made", "told"),
    [
        (f"{SOURCE}, at night", lambda: None, {}),
        ("", lambda: nodes.Reweight().run("red = 3")[0], {"weights": {"red": 3.0}}),
        (
            SWAP,
            lambda: nodes.LocalBlend().run("cat, dog", "", 0.6, 0.2, options=nodes.Windows().run(0.8, 0.6)[0])[0],
            {**BLEND, "cross": 0.8, "self_attention": 0.6},
        ),
    ],
    ids=["refine", "re-weight", "swap and blend"],
)
def test_edits_are_those_of_the_library(sd: Any, target: str, made: Any, told: Any) -> None:
    network, loaded = sd
    source, changed, latents, result = edited(loaded, target, made())
    own = pw.edit(SOURCE, *([target] if target else []), model=network, **TOLD, **told)
    assert apart(result.sample.latents, own.sample.latents) < 1e-5
    assert result.recipe.controls == own.recipe.controls
    assert torch.equal(latents["samples"], result.sample.latents[:, 0] / 0.5)
    assert source.shape == changed.shape == (1, 32, 32, 3) and source.dtype == torch.float32
    assert torch.equal((source[0] * 255).round().byte(), torch.from_numpy(result.sample.pictures[0, 0]))


def test_edits_of_joint_attention_are_those_of_the_library(flux: Any) -> None:
    network, loaded = flux
    window = nodes.JointWindow().run(0.7)[0]
    *_, result = edited(loaded, SWAP, nodes.LocalBlend().run("cat, dog", "", 0.6, 0.2, options=window)[0], maps=True)
    own = pw.edit(SOURCE, SWAP, model=network, maps=True, **TOLD, **BLEND, joint=0.7)
    plain = pw.edit(SOURCE, SWAP, model=network, **TOLD, controls=[])
    assert apart(result.sample.latents, own.sample.latents) < 1e-5 < apart(plain.sample.latents, own.sample.latents) / 9
    assert apart(*(pw.edit_maps(one).maps[1].of("dog") for one in (result, own))) < 1e-5


def test_a_plain_image_is_that_of_eulers_method_bit_for_bit(sd: Any) -> None:
    """As in ComfyUI: x + (x - denoised) / sigma * (next - sigma), guided between the denoised latents."""
    _, loaded = sd
    seen = ComfyModel(*loaded, "simple")
    found = pw.generate(SOURCE, model=seen, **TOLD).sample.latents[0]
    model, clip, _ = loaded
    sigmas = miniature.simple(model.model.model_sampling, "simple", 2)
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3)) * (1 + sigmas[0] ** 2) ** 0.5
    text = torch.cat([clip.encode_from_tokens(clip.tokenize(prompt))["cond"] for prompt in ("", SOURCE)])
    for sigma, after in zip(sigmas, sigmas[1:], strict=False):
        twice = torch.cat([x, x])
        uncond, cond = model.model.apply_model(twice, sigma.expand(2), transformer_options={}, c_crossattn=text).chunk(
            2
        )
        x = x + (x - (uncond + (cond - uncond) * 3.0)) / sigma * (after - sigma)
    assert torch.equal(found, x)


def test_edits_of_a_recording_are_those_of_the_run(sd: Any) -> None:
    _, loaded = sd
    recording, image, latents = nodes.Record().run(
        *loaded, SOURCE, scheduler="simple", cross=0.8, self_attention=0.6, joint=0.2, **RUN
    )
    blend = nodes.LocalBlend().run("cat, dog", "", 0.6, 0.2, options=nodes.Windows().run(0.8, 0.6)[0])[0]
    source, *_, result = nodes.EditRecording().run(*loaded, recording, SWAP, "replace", True, options=blend)
    *_, whole, direct = edited(loaded, SWAP, blend, kind="replace", maps=True)
    assert apart(result.sample.latents, direct.sample.latents) < 1e-5 and torch.equal(source, image)
    assert apart(latents["samples"], whole["samples"][:1]) < 1e-5
    loaded[0].patches_uuid = "1"  # as a LoRA changes it
    try:
        with pytest.raises(ValueError, match="edited with the model that made it"):
            nodes.EditRecording().run(*loaded, recording, SWAP, "auto", True)
    finally:
        loaded[0].patches_uuid = "0"


def test_maps_and_masks(sd: Any) -> None:
    _, loaded = sd
    *_, result = edited(loaded, f"{SWAP}\n{SOURCE}, at night", maps=True)
    assert len(result.recipe.targets) == 2
    sheets = nodes.WordMaps().run(result, 2)
    assert all(sheet.ndim == 4 and sheet.shape[-1] == 3 and 0 <= sheet.min() < sheet.max() <= 1 for sheet in sheets)
    (soft,), (hard,) = nodes.WordMask().run(result, "dog", 1, 0.0), nodes.WordMask().run(result, "dog", 1, 0.5)
    assert soft.shape == hard.shape == (1, 32, 32) and set(hard.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(hard, (soft > 0.5).float())
    (told,) = nodes.LocalBlend().run("", "", 0.3, 0.2, mask=hard)
    assert edited(loaded, SWAP, told)[3].recipe.controls[-1].mask is not None
    with pytest.raises(ValueError, match="'cat' has no map. Choose one of"):
        nodes.WordMask().run(result, "cat", 1, 0.0)
    with pytest.raises(ValueError, match="has the targets 1 to 2. Received 3"):
        nodes.WordMaps().run(result, 3)
    with pytest.raises(ValueError, match="Switch them on"):
        nodes.WordMaps().run(edited(loaded, SWAP)[3], 1)


def test_the_model_is_one_of_the_library(sd: Any, flux: Any) -> None:
    for network, loaded in (sd, flux):
        seen = ComfyModel(*loaded, "simple")
        assert isinstance(seen, Model)
        for grid in ((16, 16), (17, 22) if seen.guided else (18, 22)):
            mine, own = ([replace(site, path="") for site in one.sites(grid)] for one in (seen, network))
            assert mine == own
            assert seen.map_grid(grid) == network.map_grid(grid)
            assert [site in seen.map_sites(grid) for site in mine] == [site in network.map_sites(grid) for site in own]
        assert seen.words(SWAP).find("dog") == network.words(SWAP).find("dog")
        assert (seen.factor, seen.multiple, seen.channels) == (network.factor, network.multiple, network.channels)
        image = torch.rand(1, 32, 32, 3)
        latent = seen.to_latent(image)
        assert apart(seen.to_image(latent), loaded[2].decode(loaded[2].encode(image))) < 1e-6


def test_comfyui_loads_shows_and_stops(sd: Any, noted: SimpleNamespace) -> None:
    _, loaded = sd
    edited(loaded, SWAP)
    assert noted.bar == [(1, 2), (2, 2)]
    assert noted.loads == [([loaded[0]], 16)]  # once, for four rows
    noted.interrupted = True
    with pytest.raises(miniature.Interrupted):
        edited(loaded, SWAP)


@pytest.mark.parametrize("name", ["sampler_post_cfg_function", "patches_replace", "wrapper apply_model"])
def test_patches_that_would_not_act_are_refused(sd: Any, name: str) -> None:
    _, (model, clip, vae) = sd
    patched = miniature.Patcher(model.model)
    if name == "wrapper apply_model":
        patched.wrappers["apply_model"] = {None: [print]}
    where = patched.model_options if name[0] == "s" else patched.model_options["transformer_options"]
    where[name] = [lambda args: args]
    with pytest.raises(ModelError, match=f"Received {name}. Connect the MODEL from before"):
        edited((patched, clip, vae), SWAP)


def test_a_layer_that_does_not_call_attention_is_noticed(sd: Any) -> None:
    _, loaded = sd
    unet = loaded[0].model.diffusion_model.unet
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    kept, layer.processor = layer.processor, lambda attn, x, **_: x
    try:
        with pytest.raises(ValueError, match="layer by layer. Received a MODEL in which"):
            edited(loaded, SWAP)
    finally:
        layer.processor = kept


def test_models_and_prompts_that_cannot_be_edited_are_refused(sd: Any, flux: Any) -> None:
    (model, clip, vae), (other, *_) = sd[1], flux[1]
    with pytest.raises(ModelError, match="Connect the CLIP of its checkpoint"):
        ComfyModel(other, clip, vae)
    strange = miniature.Patcher(miniature.BaseModel(SimpleNamespace(), torch.rand(10), 4))
    with pytest.raises(ModelError, match="Received a MODEL with the network SimpleNamespace"):
        ComfyModel(strange, clip, vae)
    filling = miniature.BaseModel(model.model.diffusion_model, torch.rand(10), 4)
    filling.model_config.unet_config["in_channels"] = 9
    with pytest.raises(ModelError, match="with 9 channels instead of 4"):
        ComfyModel(miniature.Patcher(filling), clip, vae)
    with pytest.raises(PromptTooLong, match="77 tokens"):
        edited(sd[1], " ".join([SWAP] * 20))
    with pytest.raises(ValueError, match="read a prompt as the same tokens"):
        edited(sd[1], f"[{SWAP}]")  # ComfyUI reads the brackets
    for targets, options in (("", None), (SWAP, {"joint": 0.5})):
        with pytest.raises(ValueError, match="Received neither|Nothing reads joint"):
            edited(sd[1], targets, options)


def test_options_are_chained_and_checked() -> None:
    window = nodes.Windows().run(0.5, 0.25)[0]
    chain = nodes.Reweight().run("red car=2, cat=-1\nlast = .5", window)[0]
    assert chain == {"cross": 0.5, "self_attention": 0.25, "weights": {"red car": 2.0, "cat": -1.0, "last": 0.5}}
    with pytest.raises(ValueError, match="Received two for cross"):
        nodes.Windows().run(0.5, 0.25, window)
    for text in ("red", "=2", "red=much", " \n"):
        with pytest.raises(ValueError, match="WORD=FACTOR"):
            nodes.Reweight().run(text)
    with pytest.raises(ValueError, match="needs words"):
        nodes.LocalBlend().run(" ", "", 0.3, 0.2)
    with pytest.raises(ValueError, match="Received 2"):
        nodes.LocalBlend().run("", "", 0.3, 0.2, mask=torch.ones(2, 8, 8))

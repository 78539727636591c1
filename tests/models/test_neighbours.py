"""LoRAs and ControlNets keep working under our controls; what we would have to drop is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from families import build_flux, build_sd3, build_sdxl
from PIL import Image
from tiny import build_tiny

from promptweave import LocalBlend, RecordMaps, Replace, load, noise_for, sample
from promptweave.models.load import ModelError
from promptweave.models.tap import ForeignProcessor

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
BUILDERS = {"sd": build_tiny, "sdxl": build_sdxl, "sd3": build_sd3, "flux": build_flux}


def with_lora(pipeline, seed: int = 0):
    from peft import LoraConfig

    network = getattr(pipeline, "unet", None) or pipeline.transformer
    torch.manual_seed(seed)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    network.add_adapter(LoraConfig(r=2, lora_alpha=8, target_modules=targets, init_lora_weights=False))
    return pipeline


@pytest.mark.parametrize("family", BUILDERS)
def test_a_lora_acts_under_controls(family, tokenizer):
    plain, adapted = load(BUILDERS[family](tokenizer)), load(with_lora(BUILDERS[family](tokenizer)))
    settings = {"noise": noise_for(plain, 0), "steps": 5, "guidance": 3.0}
    controls = [Replace(joint=0.4), LocalBlend("dog")]
    without, alone = (sample(model, [SOURCE], **settings).latents for model in (plain, adapted))
    assert (without - alone).abs().max() > 1e-3
    made = sample(adapted, [SOURCE, TARGET], controls=controls, **settings).latents
    torch.testing.assert_close(made[0], alone[0], rtol=1e-3, atol=1e-3)  # float32, other batch sizes
    assert (made[1] - made[0]).abs().max() > 1e-3
    network = adapted.network
    network.disable_adapters()
    torch.testing.assert_close(sample(adapted, [SOURCE], **settings).latents, without)
    network.enable_adapters()
    assert plain.fingerprint() != adapted.fingerprint()


def control_pipeline(tokenizer) -> StableDiffusionControlNetPipeline:
    parts = build_tiny(tokenizer).components
    torch.manual_seed(7)
    net = ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(16, 32))
    for parameter in net.parameters():  # its last layers start at zero, and a ControlNet at zero says nothing
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return StableDiffusionControlNetPipeline(**parts, controlnet=net, requires_safety_checker=False)


def test_a_controlnet_acts_under_controls(tokenizer):
    pipeline = control_pipeline(tokenizer)
    pipeline.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(0)
    pictures = [torch.tensor(rng.random((1, 3, 32, 32)), dtype=torch.float32) for _ in range(2)]
    model = load(pipeline, control=pictures[0])
    noise = noise_for(model, 2)
    settings = {"noise": noise, "steps": 3, "guidance": 3.0}
    ours = sample(model, [SOURCE], **settings).latents[0]
    wanted = pipeline(
        SOURCE, image=pictures[0], latents=noise, num_inference_steps=3, guidance_scale=3.0, output_type="latent"
    ).images  # fmt: skip
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
    made = sample(model, [SOURCE, TARGET], controls=[Replace()], **settings).latents
    torch.testing.assert_close(made[0], ours, rtol=2e-4, atol=2e-4)
    other = load(pipeline, control=pictures[1])
    assert (sample(other, [SOURCE], **settings).latents[0] - ours).abs().max() > 1e-3
    assert model.fingerprint() != other.fingerprint()


def test_a_control_picture_is_cropped_as_an_input_image_is(tokenizer):
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8))
    made = []
    for picture in (wide, wide.crop((16, 0, 48, 32)), wide.resize((32, 32))):
        model = load(control_pipeline(tokenizer), control=picture)
        made.append(sample(model, [SOURCE], noise=noise_for(model, 0), steps=2).latents)
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_a_control_picture_is_needed_and_only_by_a_controlnet(tokenizer, tiny):
    with pytest.raises(ValueError, match="needs a control image"):
        model = load(control_pipeline(tokenizer))
        sample(model, [SOURCE], noise=noise_for(model, 0), steps=1)
    with pytest.raises(ModelError, match="pipeline with a ControlNet. Received StableDiffusionPipeline"):
        load(tiny.pipeline, control=torch.zeros(1, 3, 32, 32))


def with_ip_adapters(pipeline, tokens: tuple[int, ...] = (4,), seed: int = 0):
    """A pipeline that reads pictures: an image encoder and an IP-Adapter for each number of tokens."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, projection_dim=20, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8,
    )  # fmt: skip
    extractor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipeline.register_modules(image_encoder=CLIPVisionModelWithProjection(vision), feature_extractor=extractor)
    width, states = pipeline.unet.config.cross_attention_dim, []
    by_name = dict(pipeline.unet.named_modules())
    layers = [by_name[name.removesuffix(".processor")] for name in pipeline.unet.attn_processors if "attn2" in name]
    for _ in tokens:
        weights = {
            f"{2 * number + 1}.{name}.weight": torch.randn(layer.inner_dim, width) / 4
            for number, layer in enumerate(layers)
            for name in ("to_k_ip", "to_v_ip")
        }
        projection = {
            "proj.weight": torch.randn(4 * width, 20), "proj.bias": torch.randn(4 * width),
            "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width),
        }  # fmt: skip
        states.append({"image_proj": projection, "ip_adapter": weights})
    pipeline.load_ip_adapter(states, subfolder=[""] * len(tokens), weight_name=[""] * len(tokens))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(("build", "count"), [(build_tiny, 1), (build_tiny, 2), (build_sdxl, 1)])
def test_an_ip_adapter_acts_under_controls(build, count, tokenizer):
    pipeline = with_ip_adapters(build(tokenizer), (4,) * count)
    pipeline.set_ip_adapter_scale([0.7, 0.4][:count])
    rng = np.random.default_rng(1)
    pictures = [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]
    processors = dict(pipeline.unet.attn_processors)
    model = load(pipeline, image_prompt=pictures)
    noise = noise_for(model, 2)
    settings = {"noise": noise, "steps": 3, "guidance": 3.0}
    ours = sample(model, [SOURCE], controls=[RecordMaps()], **settings).latents[0]
    wanted = pipeline(
        SOURCE, ip_adapter_image=pictures, latents=noise, num_inference_steps=3, guidance_scale=3.0,
        output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
    made = sample(model, [SOURCE, TARGET], controls=[Replace()], **settings).latents
    torch.testing.assert_close(made[0], ours, rtol=2e-4, atol=2e-4)
    assert (made[1] - made[0]).abs().max() > 1e-3
    same = sample(model, [SOURCE, SOURCE], controls=[Replace(1.0, 1.0)], **settings).latents
    torch.testing.assert_close(same[1], same[0])
    assert pipeline.unet.attn_processors == processors
    other = load(pipeline, image_prompt=pictures[::-1] if count == 2 else [pictures[0].transpose(0)])
    assert (sample(other, [SOURCE], **settings).latents[0] - ours).abs().max() > 1e-3
    assert model.fingerprint() != other.fingerprint()


def test_an_ip_adapter_needs_its_picture_and_a_picture_needs_an_adapter(tokenizer, tiny):
    model = load(with_ip_adapters(build_tiny(tokenizer)))
    with pytest.raises(ValueError, match=r"needs an image prompt.*image_prompt=image"):
        sample(model, [SOURCE], noise=noise_for(model, 0), steps=1)
    with pytest.raises(ModelError, match=r"pipeline with an IP-Adapter.*StableDiffusionPipeline.*load_ip_adapter"):
        load(tiny.pipeline, image_prompt=Image.new("RGB", (32, 32)))


class SomebodysProcessor:
    """An attention processor that nobody but its author knows."""

    def __call__(self, attn, hidden_states, *rest, **named):
        return hidden_states


@pytest.mark.parametrize("family", BUILDERS)
def test_a_foreign_processor_is_refused_by_name_and_left_in_place(family, tokenizer):
    model = load(BUILDERS[family](tokenizer))
    path = model.sites((16, 16))[-1].path
    layer, processor = model.network.get_submodule(path), SomebodysProcessor()
    layer.set_processor(processor)
    with pytest.raises(ForeignProcessor, match="SomebodysProcessor, which controls would have to replace"):
        settings = {"noise": noise_for(model, 0), "steps": 1, "guidance": 3.0}
        sample(model, [SOURCE, TARGET], controls=[Replace(1.0, joint=1.0)], **settings)
    assert layer.processor is processor


def test_tiling_and_slicing_of_the_autoencoder(tokenizer):
    model = load(build_tiny(tokenizer))
    settings = {"noise": noise_for(model, 0, 1, (64, 64)), "steps": 1, "guidance": 1.0}
    plain = sample(model, [SOURCE], **settings)
    model.pipeline.vae.enable_slicing()
    assert np.array_equal(sample(model, [SOURCE], **settings).pictures, plain.pictures)
    model.pipeline.vae.enable_tiling()
    assert sample(model, [SOURCE], **settings).pictures.shape == plain.pictures.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", BUILDERS)
def test_half_precision(family, dtype, tokenizer):
    model = load(BUILDERS[family](tokenizer).to(dtype))
    exact = load(BUILDERS[family](tokenizer))
    settings = {"noise": noise_for(exact, 0), "steps": 3, "guidance": 3.0, "controls": [Replace(joint=0.4)]}
    half, single = (sample(m, [SOURCE, TARGET], **settings).latents for m in (model, exact))
    assert half.dtype == torch.float32 and torch.isfinite(half).all()
    assert float((half - single).norm() / single.norm()) < 0.2

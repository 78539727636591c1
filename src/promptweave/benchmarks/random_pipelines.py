"""Pipelines with random weights for timing: Stable Diffusion 1.5 and XL, reduced SD3 and FLUX."""
# pyright: reportArgumentType=false, reportReturnType=false
# (diffusers annotates tuples of any length as tuple[int], and optional parts of a pipeline as required)

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from promptweave.world.build import build_scheduler, build_tokenizer

SENTENCES = ["a photo of a cat riding a bike", "a photo of a lion riding a bike"]


def clip_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer with the vocabulary of two sentences."""
    with tempfile.TemporaryDirectory() as folder:
        return build_tokenizer(SENTENCES * 4, Path(folder), 600)


def clip_config(tokenizer: Any, width: int, layers: int, heads: int) -> CLIPTextConfig:
    """A CLIP text encoder."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def vae(channels: int = 4, **config: Any) -> AutoencoderKL:
    """Stable Diffusion's autoencoder."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=channels,
        sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **config,
    )


def random_sd15() -> StableDiffusionPipeline:
    """Stable Diffusion 1.5's shapes."""
    tokenizer = clip_tokenizer()
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(clip_config(tokenizer, 768, 12, 12)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def random_sdxl() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL's shapes, its second text encoder with 4 layers of 32."""
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=1280 + 6 * 256,
    )
    return StableDiffusionXLPipeline(
        vae=vae(),
        unet=unet,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        text_encoder=CLIPTextModel(clip_config(tokenizer, 768, 2, 12)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, 1280, 4, 20)),
        scheduler=build_scheduler(),
    )


def t5(width: int) -> tuple[PreTrainedTokenizerFast, T5EncoderModel]:
    """A T5 tokenizer with the vocabulary of two sentences, and a small encoder of T5's width."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(SENTENCES * 4, trainer)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    config = T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=64, d_ff=width, num_layers=1, num_heads=8)
    return tokenizer, T5EncoderModel(config)


def random_sd3(blocks: int = 4) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3 medium's shapes, with fewer blocks and small text encoders."""
    tokenizer, (tokenizer_3, encoder_3) = clip_tokenizer(), t5(4096)
    transformer = SD3Transformer2DModel(
        sample_size=128,
        num_layers=blocks,
        num_attention_heads=24,
        attention_head_dim=64,
        joint_attention_dim=4096,
        caption_projection_dim=1536,
        pooled_projection_dim=2048,
        pos_embed_max_size=192,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        vae=vae(16, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=tokenizer_3,
        text_encoder=CLIPTextModelWithProjection(clip_config(tokenizer, 768, 2, 12)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, 1280, 2, 20)),
        text_encoder_3=encoder_3,
    )


def random_flux(double: int = 2, single: int = 4) -> FluxPipeline:
    """FLUX.1-dev's shapes, with fewer blocks and small text encoders."""
    tokenizer, (tokenizer_2, encoder_2) = clip_tokenizer(), t5(4096)
    transformer = FluxTransformer2DModel(num_layers=double, num_single_layers=single, guidance_embeds=True)
    return FluxPipeline(
        transformer=transformer,
        vae=vae(16, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=1.15),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        text_encoder=CLIPTextModel(clip_config(tokenizer, 768, 2, 12)),
        text_encoder_2=encoder_2,
    )


def narrow_vae() -> AutoencoderKL:
    """An autoencoder of Stable Diffusion's form with 8 channels."""
    return AutoencoderKL(
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def narrow_sd15() -> StableDiffusionPipeline:
    """The layers of Stable Diffusion 1.5 with 32 channels, two heads of 16: next to no arithmetic."""
    tokenizer = clip_tokenizer()
    return StableDiffusionPipeline(
        vae=narrow_vae(),
        text_encoder=CLIPTextModel(clip_config(tokenizer, 24, 1, 2)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(32,) * 4,
            norm_num_groups=8,
            cross_attention_dim=24,
            attention_head_dim=2,  # the number of heads, as in Stable Diffusion's own configuration
        ),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def narrow_sdxl() -> StableDiffusionXLPipeline:
    """The layers of Stable Diffusion XL with 32 channels, two heads of 16."""
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(32,) * 3,
        norm_num_groups=8,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=2,
        cross_attention_dim=48,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    return StableDiffusionXLPipeline(
        vae=narrow_vae(),
        unet=unet,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        text_encoder=CLIPTextModel(clip_config(tokenizer, 24, 1, 2)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, 24, 1, 2)),
        scheduler=build_scheduler(),
    )


RANDOM: dict[str, Callable[[], Any]] = {
    "sd15-random": random_sd15,
    "sdxl-random": random_sdxl,
    "sd3-random": random_sd3,
    "flux-random": random_flux,
}

"""Pipelines of every family with tiny random weights, built in code."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    LDMTextToImagePipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.models.attention import Attention
from diffusers.models.transformers.transformer_flux import FluxAttention
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from tiny import SENTENCES, build_tiny
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertTokenizerFast,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from promptweave.models.sd3 import T5_ATTRIBUTE

LOUDER = 3  # default weights make attention nearly uniform, and tests without power


def louder(network: torch.nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, Attention | FluxAttention):
            for name in ("to_q", "to_k", "add_q_proj", "add_k_proj"):
                layer = getattr(module, name, None)
                if layer is not None:
                    layer.weight.data *= LOUDER
        if hasattr(module, "context_embedder"):
            module.context_embedder.weight.data *= 10


def clip_config(tokenizer: Any, **changes: Any) -> CLIPTextConfig:
    settings = {
        "vocab_size": len(tokenizer), "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 3, "max_position_embeddings": 77, "projection_dim": 20,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    return CLIPTextConfig(**{**settings, **changes})


def build_vae(channels: int = 4, **config: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16), layers_per_block=1, latent_channels=channels, norm_num_groups=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **config,
    )  # fmt: skip


def build_sdxl(tokenizer: Any, **options: Any) -> StableDiffusionXLPipeline:
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(32, 48), layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=24 + 30, attention_head_dim=(2, 3), transformer_layers_per_block=(1, 2),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    louder(unet)
    return StableDiffusionXLPipeline(
        vae=build_vae(), unet=unet, tokenizer=tokenizer, tokenizer_2=tokenizer,
        text_encoder=CLIPTextModel(clip_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, hidden_size=30)),
        scheduler=build_tiny(tokenizer).scheduler, **options,
    )  # fmt: skip


def build_lcm(tokenizer: Any) -> LatentConsistencyModelPipeline:
    parts = dict(build_tiny(tokenizer).components)
    torch.manual_seed(2)
    unet = UNet2DConditionModel.from_config(parts["unet"].config, time_cond_proj_dim=16)
    louder(unet)
    parts.update(unet=unet, scheduler=LCMScheduler.from_config(parts["scheduler"].config))
    return LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)


def build_turbo(tokenizer: Any) -> StableDiffusionPipeline:
    from diffusers import EulerAncestralDiscreteScheduler

    pipeline = build_tiny(tokenizer)
    config = pipeline.scheduler.config
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(config, timestep_spacing="trailing")
    return pipeline


def bert_tokenizer() -> BertTokenizerFast:
    words = sorted({piece for sentence in SENTENCES for piece in sentence.split()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *"abcdefghijklmnopqrstuvwxyz,."]
    pieces += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    return BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=512)


def build_ldm(kind: str = "vq") -> LDMTextToImagePipeline:
    tokenizer = bert_tokenizer()
    torch.manual_seed(3)
    bert = LDMBertModel(
        LDMBertConfig(
            vocab_size=len(tokenizer), d_model=24, encoder_layers=2, encoder_attention_heads=2, head_dim=12,
            encoder_ffn_dim=40, max_position_embeddings=77,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(32, 48), layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=24, attention_head_dim=(2, 3),
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    )  # fmt: skip
    louder(unet)
    vq = VQModel(
        block_out_channels=(8, 16, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=128,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, num_vq_embeddings=16,
    )  # fmt: skip
    kl = AutoencoderKL(
        block_out_channels=(8, 16, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=128,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1, beta_schedule="scaled_linear")
    return LDMTextToImagePipeline(vq if kind == "vq" else kl, bert, tokenizer, unet, scheduler)


@lru_cache  # its trainer does not give the same pieces twice
def t5_tokenizer(length: int = 512) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length
    )


def t5_encoder(tokenizer: Any, width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=40, num_layers=2, num_heads=2)
    )


def build_sd3(
    tokenizer: Any, *, dual: tuple[int, ...] = (), t5: bool = True, places: int = 24
) -> StableDiffusion3Pipeline:
    """With `places` tokens of T5: fewer than the 256 of the published models cost a fraction of the attention."""
    torch.manual_seed(4)
    second = t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=8, out_channels=8, num_layers=4, attention_head_dim=8,
        num_attention_heads=3, joint_attention_dim=64, caption_projection_dim=24, pooled_projection_dim=24 + 30,
        pos_embed_max_size=24, dual_attention_layers=dual, qk_norm="rms_norm" if dual else None,
    )  # fmt: skip
    louder(transformer)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer, vae=build_vae(8, shift_factor=0.06, scaling_factor=1.3, use_quant_conv=False),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), tokenizer=tokenizer, tokenizer_2=tokenizer,
        tokenizer_3=second if t5 else None,
        text_encoder=CLIPTextModelWithProjection(clip_config(tokenizer, projection_dim=24)),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, hidden_size=30, projection_dim=30)),
        text_encoder_3=t5_encoder(second, 64) if t5 else None,
    )  # fmt: skip
    setattr(pipeline, T5_ATTRIBUTE, places)
    return pipeline


def build_flux(tokenizer: Any, *, dev: bool = True) -> FluxPipeline:
    torch.manual_seed(5)
    second = t5_tokenizer(48)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=24, guidance_embeds=dev, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    louder(transformer)
    pipeline = FluxPipeline(
        transformer=transformer, vae=build_vae(4, shift_factor=0.06, scaling_factor=1.3, use_quant_conv=False),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=dev, max_shift=1.15 if dev else 1.0),
        tokenizer=tokenizer, tokenizer_2=second, text_encoder=CLIPTextModel(clip_config(tokenizer)),
        text_encoder_2=t5_encoder(second, 32),
    )  # fmt: skip
    pipeline.default_sample_size = 16
    return pipeline


def widened(unet: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """A network of the same shape, with random weights, that reads more channels."""
    torch.manual_seed(6)
    made = UNet2DConditionModel.from_config(unet.config, in_channels=channels)
    louder(made)
    return made


def build_inpainting(tokenizer: Any, channels: int = 9) -> StableDiffusionInpaintPipeline:
    parts = dict(build_tiny(tokenizer).components)
    parts.pop("image_encoder", None)
    parts["unet"] = widened(parts["unet"], channels)
    return StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)


def build_inpainting_xl(tokenizer: Any) -> StableDiffusionXLInpaintPipeline:
    parts = {name: part for name, part in build_sdxl(tokenizer).components.items() if part is not None}
    parts["unet"] = widened(parts["unet"], 9)
    return StableDiffusionXLInpaintPipeline(**parts)


def build_flux_fill(tokenizer: Any) -> FluxFillPipeline:
    parts = {name: part for name, part in build_flux(tokenizer).components.items() if part is not None}
    torch.manual_seed(7)
    transformer = FluxTransformer2DModel.from_config(  # its autoencoder has 2 x 2 pixels in a cell
        parts["transformer"].config, in_channels=4 * (4 + 4 + 2 * 2), out_channels=16
    )
    louder(transformer)
    pipeline = FluxFillPipeline(**{**parts, "transformer": transformer})
    pipeline.default_sample_size = 16
    return pipeline


BUILDERS = {
    "Stable Diffusion 1.x": build_tiny,
    "Stable Diffusion 2.x (v-prediction)": lambda tokenizer: build_tiny(tokenizer, prediction="v_prediction"),
    "Turbo": build_turbo,
    "LCM": build_lcm,
    "Stable Diffusion XL": build_sdxl,
    "Latent diffusion (VQ)": lambda tokenizer: build_ldm("vq"),
    "Latent diffusion (KL)": lambda tokenizer: build_ldm("kl"),
    "Stable Diffusion 3": lambda tokenizer: build_sd3(tokenizer, places=256),
    "Stable Diffusion 3, no T5": lambda tokenizer: build_sd3(tokenizer, t5=False, places=256),
    "Stable Diffusion 3.5 medium": lambda tokenizer: build_sd3(tokenizer, dual=(0, 1), places=256),
    "FLUX.1-dev": build_flux,
    "FLUX.1-schnell": lambda tokenizer: build_flux(tokenizer, dev=False),
}

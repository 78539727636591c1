"""The networks of the embedded model: the classes of Stable Diffusion 1.x in miniature, and how they are saved."""
# pyright: reportArgumentType=false, reportReturnType=false
# (diffusers annotates tuples of any length as tuple[int], and optional parts of a pipeline as required)

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from promptweave.core.files import replacing_folder
from promptweave.models.embedded import GUIDANCE, mark
from promptweave.models.quiet import quiet

LATENT_CHANNELS = 8
TEXT_WIDTH = 192
MAXIMUM_LENGTH = 77
END_LOUDNESS = 1000.0
USUAL_GUIDANCE = 2.0  # larger values bind words worse and leave artefacts (docs/toybox.md)
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def build_tokenizer(sentences: Iterable[str], folder: Path, size: int = 1000) -> CLIPTokenizer:
    """A CLIP byte-pair tokenizer (Sennrich et al. 2016), trained on the sentences and saved to `folder`."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(WORD_PATTERN), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = alphabet + [piece + "</w>" for piece in alphabet] + ["".join(pair) for pair in merges]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, START, END]))}
    folder.mkdir(parents=True, exist_ok=True)
    clip = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=MAXIMUM_LENGTH,
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
    )
    clip.save_pretrained(folder)
    return clip


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Four causal layers of width 192 over 77 positions (2 M parameters)."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=MAXIMUM_LENGTH,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModel(config)
    with torch.no_grad():
        table: Any = encoder.get_input_embeddings()
        table.weight[tokenizer.eos_token_id] = loud_row(TEXT_WIDTH)
    return encoder


def loud_row(width: int) -> torch.Tensor:
    """The initial embedding of the end token, which is also the padding token: much larger than all others.

    The encoder is causal, so padding sees the whole prompt, and there is more padding than words. Without this, the
    network reads the prompt from the padding, attends to it from every pixel alike, and words are not localised. After
    the last layer norm, the large vector dominates what the padding token has seen: padding carries no information, and
    the network must attend to words.
    """
    signs = torch.randint(0, 2, (width,), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return END_LOUDNESS * (signs - signs.mean())


def build_vae() -> AutoencoderKL:
    """Factor 8, eight latent channels (2.7 M parameters): 128-pixel images become 16 x 16 x 8."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=128,
        scaling_factor=1.0,
        shift_factor=0.0,  # required by the Stable Diffusion 3 pipeline
    )


def build_unet() -> UNet2DConditionModel:
    """Attention on grids of 16 x 16, 8 x 8 and, in the middle block, 4 x 4 (19 M parameters)."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(128, 192, 256),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(4, 6, 8),
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )


def build_scheduler() -> DDIMScheduler:
    """Cosine noise schedule (Nichol & Dhariwal 2021), v-prediction (Salimans & Ho 2022)."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


def save_pipeline(
    folder: Path, vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> None:
    """Write a StableDiffusionPipeline folder in half precision; an existing one is replaced once it is complete."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with replacing_folder(folder) as fresh:
        with quiet():
            pipeline.to(dtype=torch.float16)
            pipeline.save_pretrained(fresh, safe_serialization=True)
            pipeline.to(dtype=torch.float32)
        tokenizer.backend_tokenizer.model.save(str(fresh / "tokenizer"))  # vocab.json and merges.txt, for older readers
        mark(fresh, **{GUIDANCE: USUAL_GUIDANCE})

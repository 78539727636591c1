"""The networks of `toybox-dit`: the classes of Stable Diffusion 3 in miniature, and how they are saved."""
# pyright: reportArgumentType=false, reportReturnType=false
# (diffusers annotates optional parts of a pipeline as required)

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from promptweave.core.files import replacing_folder
from promptweave.models.embedded import BORROWED, EMBEDDED, GUIDANCE, T5_PLACES, mark
from promptweave.models.quiet import quiet
from promptweave.world.build import LATENT_CHANNELS, MAXIMUM_LENGTH, TEXT_WIDTH, build_vae, loud_row

SIDE = 16  # of the latents of a 128-pixel image
SECOND_WIDTH = 64
JOINT_WIDTH = TEXT_WIDTH + SECOND_WIDTH
WIDTH, HEADS, BLOCKS = 192, 6, 8
LARGEST_GRID = 2 * SIDE  # tokens a side
USUAL_GUIDANCE = 3.0


def build_encoder(tokenizer: CLIPTokenizer, width: int, layers: int, heads: int) -> CLIPTextModelWithProjection:
    """A causal CLIP text encoder whose padding, and so whose pooled vector, carries no information (see `loud_row`).

    The text thus reaches the image only through attention to its words.
    """
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=MAXIMUM_LENGTH,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModelWithProjection(config)
    with torch.no_grad():
        table: Any = encoder.get_input_embeddings()
        table.weight[tokenizer.eos_token_id] = loud_row(width)
    return encoder


def build_encoders(tokenizer: CLIPTokenizer) -> tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection]:
    """The two encoders. Stable Diffusion 3 reads the penultimate layer: words in context, and words by themselves."""
    return build_encoder(tokenizer, TEXT_WIDTH, 4, 6), build_encoder(tokenizer, SECOND_WIDTH, 1, 2)


def build_transformer(patch: int = 1) -> SD3Transformer2DModel:
    """Eight joint blocks of width 192 over tokens of `patch` x `patch` latents (10.5 M parameters).

    Blocks are initialised as the identity, as in DiT (Peebles & Xie 2023). Positions are those of patch size 1 for any
    `patch`, so that a network trained on coarse tokens can continue with fine ones.
    """
    made = SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=patch,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=BLOCKS,
        attention_head_dim=WIDTH // HEADS,
        num_attention_heads=HEADS,
        joint_attention_dim=JOINT_WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=JOINT_WIDTH,
        pos_embed_max_size=LARGEST_GRID,
        qk_norm="rms_norm",
    )
    zero: list[Any] = [made.proj_out, made.norm_out.linear]
    for block in made.transformer_blocks:
        zero += [getattr(block, name).linear for name in ("norm1", "norm1_context")]
    for layer in zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return made


def patch_of(transformer: Any) -> int:
    """The patch size: latents per side of a token."""
    return transformer.config.patch_size


def finer(coarse: SD3Transformer2DModel) -> SD3Transformer2DModel:
    """A network with patch size 1, initialised from one with patch size 2.

    The embedding of a patch becomes that of its mean, and the prediction for a patch that for each of its latents.
    """
    patch = patch_of(coarse)
    made = build_transformer(1)
    state = coarse.state_dict()
    state["pos_embed.pos_embed"] = made.state_dict()["pos_embed.pos_embed"]
    state["pos_embed.proj.weight"] = state["pos_embed.proj.weight"].sum((2, 3), keepdim=True)
    for name in ("proj_out.weight", "proj_out.bias"):
        state[name] = state[name].unflatten(0, (patch * patch, LATENT_CHANNELS)).mean(0)
    made.load_state_dict(state)
    return made


def coarse_positions(transformer: SD3Transformer2DModel) -> None:
    """Give a network with larger patches the position embeddings of patch size 1, every `patch`-th of them."""
    patch = patch_of(transformer)
    embed: Any = transformer.pos_embed
    fine: Any = build_transformer(1).pos_embed
    begin = (LARGEST_GRID - SIDE) // 2
    places = fine.pos_embed.unflatten(1, (LARGEST_GRID, LARGEST_GRID))[:, begin : begin + SIDE, begin : begin + SIDE]
    table = embed.pos_embed.unflatten(1, (LARGEST_GRID, LARGEST_GRID)).clone()
    side, first = SIDE // patch, (LARGEST_GRID - SIDE // patch) // 2
    table[:, first : first + side, first : first + side] = places[:, ::patch, ::patch]
    embed.pos_embed = table.flatten(1, 2)


def save_joint_pipeline(
    folder: Path,
    transformer: SD3Transformer2DModel,
    encoders: tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection],
    tokenizer: CLIPTokenizer,
) -> None:
    """Write a StableDiffusion3Pipeline folder in half precision, without T5 and without the autoencoder of `toybox`.

    Without T5, diffusers pads the text with zeros, 256 tokens by default. The network is trained with and without them;
    promptweave leaves them out, which takes a third of the time.
    """
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=build_vae(),
        text_encoder=encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    with replacing_folder(folder) as fresh:
        with quiet():
            pipeline.to(dtype=torch.float16)
            pipeline.save_pretrained(fresh, safe_serialization=True)
            pipeline.to(dtype=torch.float32)
        shutil.rmtree(fresh / "vae")
        mark(fresh, **{BORROWED: EMBEDDED, T5_PLACES: 0, GUIDANCE: USUAL_GUIDANCE})

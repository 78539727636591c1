"""A Stable Diffusion pipeline as one checkpoint in the names of the original code."""

from __future__ import annotations

import re
from pathlib import Path

from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(name: str, layers: int, attentive: set[str]) -> str:
    """The original name of a UNet's tensor; `layers` resnets a block, `attentive` up blocks have attention."""
    for ours, theirs in ENDS.items():
        if name.startswith(ours + "."):
            return name.replace(ours, theirs, 1)
    found = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    if not found:
        found = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name)
        kind, number, rest = found.groups()
        place = f"middle_block.{2 * int(number) if kind == 'resnets' else 1}"
        return f"{place}.{inner(kind, rest)}"
    side, level, kind, number, rest = found.groups()
    level, number = int(level), int(number)
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
        place = f"input_blocks.{1 + level * (layers + 1) + number}.{0 if kind == 'resnets' else 1}"
        return f"{place}.{inner(kind, rest)}"
    if kind == "upsamplers":
        last = 2 if f"up_blocks.{level}" in attentive else 1
        return f"output_blocks.{level * (layers + 1) + layers}.{last}.{rest}"
    return f"output_blocks.{level * (layers + 1) + number}.{0 if kind == 'resnets' else 1}.{inner(kind, rest)}"


def inner(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    part, _, end = rest.partition(".")
    return f"{RESNET[part]}.{end}"


def vae_name(name: str, blocks: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0" in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for ours, theirs in VAE_ATTENTION.items():
            name = re.sub(rf"attn_1\.{ours}\.", f"attn_1.{theirs}.", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{blocks - 1 - int(m[1])}.block.{m[2]}", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", name)


def save_single_file(pipeline, path: Path) -> Path:
    """Write text encoder, UNet and autoencoder into one file."""
    tensors = {}
    unet = pipeline.unet.state_dict()
    attentive = {found[1] for name in unet if (found := re.match(r"(up_blocks\.\d)\.attentions", name))}
    for name, tensor in unet.items():
        layers = pipeline.unet.config.layers_per_block
        tensors[f"model.diffusion_model.{unet_name(name, layers, attentive)}"] = tensor
    for name, tensor in pipeline.vae.state_dict().items():
        tensors[f"first_stage_model.{vae_name(name, len(pipeline.vae.config.block_out_channels))}"] = tensor
    for name, tensor in pipeline.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    return path

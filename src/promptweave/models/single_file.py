"""Which pipeline a single checkpoint file contains, by the names of its tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SIGNS = (  # a tensor that only this family's checkpoints have, in the names of the original code
    ("FluxPipeline", "double_blocks.0.img_attn.qkv.weight"),
    ("StableDiffusion3Pipeline", "joint_blocks.0.x_block.attn.qkv.weight"),
    ("StableDiffusionXLPipeline", "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"),
    ("StableDiffusionPipeline", "model.diffusion_model.input_blocks.0.0.weight"),
)


def pipeline_class(path: Path, config: Path | None = None) -> Any:
    """The pipeline class of a checkpoint: that of the `config` folder if given, else by the names of its tensors."""
    import diffusers

    if config is not None:
        return getattr(diffusers, json.loads((config / "model_index.json").read_text())["_class_name"])
    if path.suffix != ".safetensors":
        return getattr(diffusers, SIGNS[-1][0])
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:  # pyright: ignore[reportUnknownVariableType]
        names = tuple(file.keys())
    for kind, sign in SIGNS:
        if any(name.endswith(sign) for name in names):
            return getattr(diffusers, kind)
    raise ValueError(
        f"A checkpoint is recognised by a tensor of {', '.join(kind for kind, _ in SIGNS)}. {path.name} has none of "
        "them. Give the folder of its pipeline as config."
    )

"""What a single checkpoint file contains, by the names of its tensors: pipeline class, prediction and schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptweave.models.configs import read_index
from promptweave.models.foreign import header

SIGNS = (  # a tensor that only this family's checkpoints have, in the names of the original code
    ("FluxPipeline", "double_blocks.0.img_attn.qkv.weight"),
    ("StableDiffusion3Pipeline", "joint_blocks.0.x_block.attn.qkv.weight"),
    ("StableDiffusionXLPipeline", "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"),
    ("StableDiffusionPipeline", "model.diffusion_model.input_blocks.0.0.weight"),
)
READS_MASK = {  # the tensor that reads latents, its inputs in inpainting checkpoints, and their class
    "StableDiffusionPipeline": (SIGNS[3][1], 9, "StableDiffusionInpaintPipeline"),
    "StableDiffusionXLPipeline": (SIGNS[3][1], 9, "StableDiffusionXLInpaintPipeline"),
    "FluxPipeline": ("img_in.weight", 384, "FluxFillPipeline"),
}
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"  # empty tensors by which a checkpoint says how it was trained
EDM = ("edm_vpred.sigma_max", "edm_mean")
REFINER = "conditioner.embedders.0.model.transformer.resblocks.0.attn.in_proj_weight"
SPECIFIED = "modelspec.prediction_type"  # of the file's metadata


def tensors_of(path: Path) -> Mapping[str, Any]:
    """The names of a checkpoint's tensors, of a .safetensors file with shapes and metadata. Raises ValueError."""
    if path.suffix == ".safetensors":
        return header(path)
    import torch

    state = torch.load(path, map_location="meta", weights_only=True, mmap=None)
    inner = state.get("state_dict", state) if isinstance(state, dict) else {}
    return {name: {"shape": list(getattr(value, "shape", []))} for name, value in inner.items()}


def pipeline_class(path: Path, config: Path | None = None) -> Any:
    """The pipeline class of a checkpoint: that of the `config` folder if given, else by the names of its tensors."""
    import diffusers

    if config is not None:
        return getattr(diffusers, read_index(config)["_class_name"])
    tensors = tensors_of(path)
    names = tuple(tensors)
    if any(name.endswith(REFINER) for name in names) and not any(name.endswith(SIGNS[2][1]) for name in names):
        raise ValueError(f"{path.name} is the refiner of Stable Diffusion XL. Give the base model.")
    for kind, sign in SIGNS:
        if any(name.endswith(sign) for name in names):
            return getattr(diffusers, _masked_kind(kind, tensors))
    raise ValueError(
        f"A checkpoint is recognised by a tensor of {', '.join(kind for kind, _ in SIGNS)}. {path.name} has none of "
        "them. Give the folder of its pipeline as config."
    )


def _masked_kind(kind: str, tensors: Mapping[str, Any]) -> str:
    """The class of inpainting checkpoints, whose networks read more channels; others keep theirs."""
    sign, inputs, masked = READS_MASK.get(kind, ("", 0, kind))
    shapes = [value["shape"] for name, value in tensors.items() if sign and name.endswith(sign)]
    return masked if any(len(shape) > 1 and shape[1] == inputs for shape in shapes) else kind


def trained_as(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a scheduler that a checkpoint's tensors and metadata tell. Raises ValueError for EDM's.

    A network that was trained down to a signal of zero cannot predict the noise there, so it predicts v (Lin et al.
    2024, arXiv 2305.08891); its first step must be at the last training time, which "trailing" steps have.
    """
    if any(name in tensors for name in EDM):
        raise ValueError(
            "The checkpoint was trained with the preconditioning of EDM (CosXL, Playground 2.5), whose noise levels "
            "are not those of the schedulers here. Give a model that predicts noise or v."
        )
    metadata: Mapping[str, str] = tensors.get("__metadata__") or {}
    changes: dict[str, Any] = {}
    if V_PREDICTION in tensors or ZERO_SNR in tensors or metadata.get(SPECIFIED) in ("v", "v_prediction"):
        changes["prediction_type"] = "v_prediction"
    if ZERO_SNR in tensors:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return changes


def with_training(scheduler: Any, changes: Mapping[str, Any]) -> Any:
    """The scheduler with these settings; DDIM if its own class does not have them."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    if not changes:
        return scheduler
    known = set(inspect.signature(type(scheduler).__init__).parameters)
    return (type(scheduler) if set(changes) <= known else DDIMScheduler).from_config(
        scheduler.config, **changes, **({} if set(changes) <= known else {"clip_sample": False})
    )

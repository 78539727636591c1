"""The models that ship with the package, by name, and what their folders borrow from each other."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import torch

from promptweave.models import low_rank

EMBEDDED = "toybox"
JOINT = "toybox-dit"
FAST = "toybox-fast"
NAMES = (EMBEDDED, JOINT, FAST)


def embedded_folder(name: str = EMBEDDED) -> Path:
    """The folder of an embedded model in the installed package."""
    return Path(str(resources.files("promptweave.models").joinpath(name)))


def pipeline_folder(name: str) -> Path:
    """The pipeline's folder of an embedded model: `toybox-fast` is an addition to that of `toybox`."""
    return embedded_folder(EMBEDDED if name == FAST else name)


def finish(name: str, pipeline: Any) -> None:
    """Make `toybox-fast` of the pipeline of `toybox`: merge the addition, set the scheduler that it is made for."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    if name == FAST:
        low_rank.merge(pipeline.unet, embedded_folder(FAST))
        pipeline.scheduler = DDIMScheduler.from_pretrained(embedded_folder(FAST))


def borrowed(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """Parts that an embedded model shares with another: the autoencoder of `toybox-dit` is that of `toybox`."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    if name != JOINT:
        return {}
    return {"vae": AutoencoderKL.from_pretrained(embedded_folder(), subfolder="vae", torch_dtype=dtype)}

"""The models that ship with the package, by name, and what their folders borrow from each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from promptweave.models import low_rank

EMBEDDED = "toybox"
JOINT = "toybox-dit"
FAST = "toybox-fast"
NAMES = (EMBEDDED, JOINT, FAST)
# What model_index.json says beyond diffusers (which leaves out what begins with an underscore).
BORROWED = "_autoencoder_of"  # an embedded model
T5_PLACES = "_t5_places"  # of the text that a left-out T5 encoder would give
GUIDANCE = "_guidance"  # the strength that suits the model, where it is not that of its family


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


def mark(folder: Path, **marks: Any) -> None:
    """Write what diffusers does not know into the `model_index.json` of a saved pipeline."""
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), **marks}, indent=2) + "\n")


def borrowed(index: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The autoencoder, where a folder's `model_index.json` says that it is that of an embedded model."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    owner = index.get(BORROWED)
    if owner is None:
        return {}
    return {"vae": AutoencoderKL.from_pretrained(embedded_folder(owner), subfolder="vae", torch_dtype=dtype)}

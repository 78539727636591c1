"""The models that ship with the package, by name, and the parts that their folders share."""

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
# Our own entries in model_index.json; diffusers ignores names that begin with an underscore.
BORROWED = "_autoencoder_of"  # the embedded model whose autoencoder is used
T5_PLACES = "_t5_places"  # number of text tokens that the omitted T5 encoder would give
GUIDANCE = "_guidance"  # the guidance that suits the model, if it is not that of its family


def embedded_folder(name: str = EMBEDDED) -> Path:
    """The folder of an embedded model in the installed package."""
    return Path(str(resources.files("promptweave.models").joinpath(name)))


def pipeline_folder(name: str) -> Path:
    """The pipeline folder of an embedded model; `toybox-fast` is a low-rank addition to that of `toybox`."""
    return embedded_folder(EMBEDDED if name == FAST else name)


def finish(name: str, pipeline: Any) -> None:
    """Turn the pipeline of `toybox` into `toybox-fast`: merge the addition and set the scheduler it was trained for."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    if name == FAST:
        low_rank.merge(pipeline.unet, embedded_folder(FAST))
        pipeline.scheduler = DDIMScheduler.from_pretrained(embedded_folder(FAST), local_files_only=True)


def mark(folder: Path, **marks: Any) -> None:
    """Add our own entries to the `model_index.json` of a saved pipeline."""
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), **marks}, indent=2) + "\n")


def borrowed(index: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The autoencoder of an embedded model, if a folder's `model_index.json` refers to it."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    owner = index.get(BORROWED)
    if owner is None:
        return {}
    if owner not in NAMES:
        raise ValueError(f"{BORROWED} of model_index.json must be one of {', '.join(NAMES)}. Received {owner!r}.")
    folder = embedded_folder(owner)
    return {"vae": AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype, local_files_only=True)}

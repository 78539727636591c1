"""The models that ship with the package, by name, and what their folders borrow from each other."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import torch

EMBEDDED = "toybox"
JOINT = "toybox-dit"
NAMES = (EMBEDDED, JOINT)


def embedded_folder(name: str = EMBEDDED) -> Path:
    """The folder of an embedded model in the installed package."""
    return Path(str(resources.files("promptweave.models").joinpath(name)))


def borrowed(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """Parts that an embedded model shares with another: the autoencoder of `toybox-dit` is that of `toybox`."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    if name != JOINT:
        return {}
    return {"vae": AutoencoderKL.from_pretrained(embedded_folder(), subfolder="vae", torch_dtype=dtype)}

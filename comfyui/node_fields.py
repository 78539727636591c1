"""What several nodes share: their fields, and values on their way to the library."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

CATEGORY = "promptweave"
LAST_SEED = 2**63 - 1
Options = dict[str, Any]


def models() -> dict[str, Any]:
    return {"model": ("MODEL",), "clip": ("CLIP",), "vae": ("VAE",)}


def run_fields() -> dict[str, Any]:
    """The settings of a run, under the names of ComfyUI's KSampler."""
    import comfy.samplers

    side = {"default": 512, "min": 16, "max": 16384, "step": 8}
    return {
        "seed": ("INT", {"default": 0, "min": 0, "max": LAST_SEED, "control_after_generate": True}),
        "steps": ("INT", {"default": 20, "min": 1, "max": 1000}),
        "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1}),
        "scheduler": (list(comfy.samplers.KSampler.SCHEDULERS),),
        "width": ("INT", side),
        "height": ("INT", side),
        "negative": ("STRING", {"multiline": True, "default": ""}),
    }


def prompt_field(tooltip: str) -> tuple[str, dict[str, Any]]:
    return "STRING", {"multiline": True, "tooltip": tooltip}


def fraction_field(default: float) -> tuple[str, dict[str, Any]]:
    return "FLOAT", {"default": default, "min": 0.0, "max": 1.0, "step": 0.01}


OPTIONS = {"options": ("PROMPTWEAVE_OPTIONS",)}
TARGETS = prompt_field("The changed prompt; further lines are further edits. Empty: re-weight the words of the source.")


def lines(text: str, separators: str = "\n") -> list[str]:
    """The parts of a text that are not blank."""
    return [part.strip() for part in re.split(f"[{separators}]", text) if part.strip()]


def factors(text: str) -> dict[str, float]:
    """Factors of words, "red=2" each, in lines or between commas. Raises ValueError."""
    found: dict[str, float] = {}
    for part in lines(text, "\n,"):
        word, _, number = part.rpartition("=")
        try:
            found[word.strip()] = float(number)
        except ValueError:
            word = ""
        if not word.strip():
            raise ValueError(f"weights has a line WORD=FACTOR for each word, such as red=2. Received {part!r}.")
    if not found:
        raise ValueError("weights needs at least one line WORD=FACTOR, such as red=2. Received none.")
    return found


def joined(options: Options | None, more: Options) -> Options:
    """Options with further ones. Raises ValueError for one that is given twice."""
    twice = set(options or {}) & set(more)
    if twice:
        raise ValueError(f"Each option is set by one node. Received two for {sorted(twice)[0]}. Remove one of them.")
    return {**(options or {}), **more}


def settings(values: Options) -> Options:
    """The library's names of a run's settings."""
    return {
        "seed": values["seed"],
        "steps": values["steps"],
        "guidance": values["cfg"],
        "size": (values["height"], values["width"]),
        "negative": values["negative"],
    }


def images(pictures: np.ndarray) -> Tensor:
    """ComfyUI's IMAGE [n, height, width, 3] of images uint8 [n, height, width, 3]."""
    return torch.from_numpy(pictures.astype(np.float32) / 255)

"""The nodes that show where the words of a result look."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

import promptweave as pw

from .node_fields import CATEGORY, fraction_field, images


class WordMaps:
    """The attention maps of a result's words."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "Where the words of an edit look: the maps of each prompt, and those before and after the edit."
    RETURN_TYPES = ("IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("source", "edited", "difference")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        target = ("INT", {"default": 1, "min": 1, "max": 64, "tooltip": "The number of the target."})
        return {"required": {"result": ("PROMPTWEAVE_RESULT",), "target": target}}

    def run(self, result: Any, target: int) -> tuple[Tensor, ...]:
        check_row(result, target)
        made = pw.edit_maps(result)
        sheets = made.maps[0].strip(), made.maps[target].strip(), made.sheet(target)
        return tuple(images(np.asarray(sheet.convert("RGB"))[None]) for sheet in sheets)


class WordMask:
    """The map of a word as a mask for other nodes."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    DESCRIPTION = "The map of a word, from 0 to 1; above a threshold of more than 0 it is 1, and elsewhere 0."
    RETURN_TYPES, RETURN_NAMES = ("MASK",), ("mask",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        row = ("INT", {"default": 0, "min": 0, "max": 64, "tooltip": "0: the source; 1: the first target."})
        word = ("STRING", {"default": ""})
        return {
            "required": {"result": ("PROMPTWEAVE_RESULT",), "word": word, "row": row, "threshold": fraction_field(0.0)}
        }

    def run(self, result: Any, word: str, row: int, threshold: float) -> tuple[Tensor]:
        check_row(result, row)
        found = pw.edit_maps(result).maps[row].of(word.strip()).float()
        found = found / found.max().clamp(min=1e-12)
        size = result.sample.pictures.shape[2:4]
        large = F.interpolate(found[None, None], size, mode="bilinear", align_corners=False)[0].cpu()
        return (large if threshold == 0 else (large > threshold).float(),)


def check_row(result: Any, row: int) -> None:
    """Raise ValueError unless a result has this prompt, and maps."""
    if not result.watched:
        raise ValueError("Word maps are kept if the edit's maps are on. Received a result without. Switch them on.")
    if row >= len(result.recipe.prompts):
        raise ValueError(f"This edit has the targets 1 to {len(result.recipe.prompts) - 1}. Received {row}.")

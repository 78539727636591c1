"""Numbers that are not finite: the error, and what helps."""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


class NotFinite(ValueError):
    """Raised for latents, images or embeddings that hold NaN or infinity."""


def finite(x: Tensor) -> bool:
    """Whether all values are numbers. The host waits for a device that holds them."""
    return bool(x.isfinite().all())


def cure(dtype: torch.dtype) -> str:
    """What helps a network that computes in this precision.

    >>> cure(torch.float16).partition(":")[0]
    'float16 ends at 65504; load the model in another precision'
    """
    if dtype == torch.float16:
        return (
            "float16 ends at 65504; load the model in another precision: load(model, dtype=torch.bfloat16) or "
            "torch.float32 (--dtype bfloat16 or float32)."
        )
    if dtype == torch.bfloat16:
        return "Load the model in single precision: load(model, dtype=torch.float32) (--dtype float32)."
    return (
        f"The model computes in {str(dtype).removeprefix('torch.')}, so its weights are damaged or a setting is too "
        "large: try another file of the model, a lower guidance, or the run without controls."
    )

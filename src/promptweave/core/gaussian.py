"""The weights of a Gaussian blur."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def gaussian(
    sigma: int | float, reach: int, *, device: torch.device | None = None, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "cells"]:
    """Weights of the `reach` cells on each side and of the middle one, whose sum is 1; `sigma` in cells.

    >>> gaussian(1, 1).tolist()
    [0.274068619061197, 0.45186276187760605, 0.274068619061197]
    """
    places = torch.arange(-reach, reach + 1, dtype=dtype, device=device)
    return (-0.5 * (places / sigma) ** 2).softmax(0)

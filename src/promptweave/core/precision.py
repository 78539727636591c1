"""In what precision a run's latents, guidance and sums are kept, whatever its network computes in."""

from __future__ import annotations

from functools import reduce

import torch


def precision(*dtypes: torch.dtype) -> torch.dtype:
    """Single precision at least, and double where one of them is.

    >>> precision(torch.float16), precision(torch.float32, torch.float64)
    (torch.float32, torch.float64)
    """
    return reduce(torch.promote_types, dtypes, torch.float32)

"""The precision of a run's latents, guidance and sums, whatever precision its network computes in."""

from __future__ import annotations

from functools import cache, reduce

import torch


@cache  # torch takes it for an operation
def precision(*dtypes: torch.dtype) -> torch.dtype:
    """At least single precision; double if one of the arguments is.

    >>> precision(torch.float16), precision(torch.float32, torch.float64)
    (torch.float32, torch.float64)
    """
    return reduce(torch.promote_types, dtypes, torch.float32)

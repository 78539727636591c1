"""The time shift of flow models for larger images (Esser et al. 2024, section 5.3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def shift(tokens: int, config: Mapping[str, Any]) -> float:
    """mu, linear in the number of image tokens, through the two points in the scheduler's configuration.

    >>> round(shift(1024, {}), 2), round(shift(4096, {}), 2)
    (0.63, 1.15)
    """
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return low + (high - low) * (tokens - few) / (many - few)

"""Attention in its slow, obvious form."""

from __future__ import annotations

from torch import Tensor


def attention(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) in full."""
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)

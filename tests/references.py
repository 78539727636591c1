"""Attention in its slow, obvious form, and the noise schedule of Stable Diffusion."""

from __future__ import annotations

import torch
from torch import Tensor


def attention(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) in full."""
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)


def scaled_linear() -> Tensor:
    """alpha_bar: beta_k = (sqrt(.00085) + (sqrt(.012) - sqrt(.00085)) k / 999)^2, in double precision."""
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - beta).cumprod(0)

"""What joint layers make of their inputs: queries, keys and values by head."""

from __future__ import annotations

from typing import Any

from diffusers.models.transformers.transformer_flux import FluxAttention
from torch import Tensor


def by_head(attn: Any, y: Tensor, norm: Any = None) -> Tensor:
    """[batch, tokens, channels] to [batch, heads, tokens, dim], normalised in the order of the network's own code."""
    y = y.unflatten(-1, (attn.heads, -1))
    if isinstance(attn, FluxAttention):
        return (y if norm is None else norm(y)).transpose(1, 2)
    y = y.transpose(1, 2)
    return y if norm is None else norm(y)


def of_text(attn: Any, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a text, [batch, heads, tokens, dim] each."""
    return (
        by_head(attn, attn.add_q_proj(text), attn.norm_added_q),
        by_head(attn, attn.add_k_proj(text), attn.norm_added_k),
        by_head(attn, attn.add_v_proj(text)),
    )

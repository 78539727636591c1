"""What joint-attention networks (MM-DiT) share: the attention processor, and the blocks that word maps come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0, XFormersJointAttnProcessor
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxAttnProcessor
from torch import Tensor

from promptweave.core.routes import IDLE
from promptweave.core.site import Site
from promptweave.core.tapping import Tap
from promptweave.models.joint_heads import by_head, of_text
from promptweave.models.riding import Riding, riding
from promptweave.models.switched import backend_of, is_compiled
from promptweave.models.tap import check_processors

PLAIN = (JointAttnProcessor2_0, XFormersJointAttnProcessor, FluxAttnProcessor)  # all compute plain attention
FLUX_BLOCKS = (18, 17, 12, 14, 11)  # double blocks
# The five blocks whose image-to-text attention segments best (arXiv 2508.07519), by (depth, dual attention).
BEST_BLOCKS: dict[tuple[int, bool], tuple[int, ...]] = {
    (24, False): (7, 8, 5, 4, 9),  # Stable Diffusion 3 medium
    (24, True): (7, 9, 8, 5, 10),  # 3.5 medium
    (38, False): (18, 21, 20, 24, 16),  # 3.5 large
}
# Roles of blocks in editing (`core.roles`), by (depth, dual attention), and of FLUX.1-dev by stream.
SD3_ROLES: dict[tuple[int, bool], dict[str, tuple[int, ...]]] = {
    (24, True): {  # 3.5 medium: LayerVerse (Zhirnov et al., ECCV 2026), its table of default configurations
        "masked": (0, 1, 3, 4, 12, 14, 17, 18, 19),
        "global": (20, 21, 22, 23),
    },
}
FLUX_ROLES: dict[tuple[int, int], dict[str, tuple[str, ...]]] = {  # by (double blocks, single blocks)
    (19, 38): {
        "masked": ("double_1", *(f"single_{number}" for number in range(32, 38))),  # LayerVerse
        "global": ("double_2",),
        "vital": (  # Stable Flow (arXiv 2411.14430)
            *(f"double_{number}" for number in (0, 1, 17, 18)),
            *(f"single_{number}" for number in (6, 9, 34, 35, 37)),
        ),
    },
}


def roles_of(block: int | str, known: Mapping[str, tuple[int | str, ...]]) -> tuple[str, ...]:
    """The roles of a block."""
    return tuple(role for role, blocks in known.items() if block in blocks)


def middle(depth: int) -> tuple[int, ...]:
    """The middle half of the blocks, used if nothing better is known."""
    return tuple(range(depth // 4, max(depth // 4 + 1, 3 * depth // 4)))


class JointTap:
    """Attention of one joint layer, or of one layer over the image alone, under a tap."""

    _parallel_config = None  # read by diffusers

    def __init__(self, site: Site, tap: Tap, before: Any, riding: Riding | None, idle: bool) -> None:
        self.site, self.tap, self.riding, self.idle = site, tap, riding, idle
        self.attend = backend_of(before)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        flux = isinstance(attn, FluxAttention)
        q, k, v = self.project(attn, hidden_states, encoder_hidden_states, flux)
        if image_rotary_emb is not None:
            rotate: Any = apply_rotary_emb
            q, k = (rotate(x, image_rotary_emb, sequence_dim=2) for x in (q, k))
        output = None if self.idle else self.tap.attend(self.site, q, k, v, attend=self.attend)
        if output is None:
            output = self.attend(q, k, v)
        if self.riding is not None and encoder_hidden_states is not None:
            self.riding.attend(attn, self.site, (q, k, v), output)
        output = output.transpose(1, 2).flatten(2).to(q.dtype)
        if encoder_hidden_states is None:
            return output if attn.pre_only else attn.to_out[1](attn.to_out[0](output))
        assert self.site.image is not None and self.site.text is not None
        image, text = output[:, self.site.image], output[:, self.site.text]
        image = attn.to_out[1](attn.to_out[0](image.contiguous()))
        if not getattr(attn, "context_pre_only", False):
            text = attn.to_add_out(text.contiguous())
        return image, text

    @staticmethod
    def project(attn: Any, x: Tensor, text: Tensor | None, flux: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of image and text, concatenated, [batch, heads, tokens, dim] each."""

        image = (
            by_head(attn, attn.to_q(x), attn.norm_q),
            by_head(attn, attn.to_k(x), attn.norm_k),
            by_head(attn, attn.to_v(x)),
        )
        if text is None:
            return image
        written = of_text(attn, text)
        pairs = zip(written, image, strict=True) if flux else zip(image, written, strict=True)
        q, k, v = (torch.cat(pair, dim=2) for pair in pairs)
        return q, k, v


@contextmanager
def joint_installed(network: Any, layers: dict[str, Any], sites: Sequence[Site], tap: Tap) -> Iterator[None]:
    """Inside, every layer has our processor; at the end, also after an exception, the old ones are restored."""
    check_processors(layers, PLAIN)
    if tap.values is not None:
        raise ValueError(
            "Joint attention reads keys and values from one text. Received two. Remove the control that gives two."
        )
    before = {path: layer.processor for path, layer in layers.items()}
    try:
        compiled = is_compiled(network)  # for which a layer must do the same in every pass
        with riding(network, tap) as riders:
            for site in sites:
                idle = not compiled and tap.plan(site) is IDLE
                layers[site.path].processor = JointTap(site, tap, before[site.path], riders, idle)
            yield
    finally:
        for path, layer in layers.items():
            layer.processor = before[path]

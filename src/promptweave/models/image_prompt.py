"""IP-Adapter (Ye et al. 2023): image prompts, which cross-attention layers read in addition to the text."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from promptweave.core.control import Text
from promptweave.models.switched import Formats


class ImagePrompt:
    """The images that a pipeline's IP-Adapters read, one for each adapter, and their embeddings.

    The embeddings [1, images, ...] are flattened and appended to the text's pooled vectors, so that each row of a batch
    has its own; unconditional rows have the embedding of no image.
    """

    def __init__(self, pipeline: Any, pictures: Any) -> None:
        with torch.no_grad():
            both = pipeline.prepare_ip_adapter_image_embeds(pictures, None, pipeline._execution_device, 1, True)
        dtype = Formats(pipeline.unet).dtype
        self.uncond, self.cond = ([pair[side : side + 1].to(dtype) for pair in both] for side in range(2))
        self.sizes = [math.prod(embedding.shape) for embedding in self.cond]

    def join(self, text: Text) -> Text:
        """The text with the embeddings appended to its pooled vectors."""
        rows = len(text.cond)
        return text.with_pooled(
            self._behind(text.pooled, self.cond, rows), self._behind(text.uncond_pooled, self.uncond, rows)
        )

    @staticmethod
    def _behind(pooled: Tensor | None, pictures: list[Tensor], rows: int) -> Tensor:
        flat = [picture.flatten(1).expand(rows, -1) for picture in pictures]
        return torch.cat(flat if pooled is None else [pooled, *flat], -1)

    def split(self, pooled: Tensor) -> tuple[Tensor | None, list[Tensor]]:
        """The text's own pooled vector [rows, dim], if it has one, and each adapter's embeddings [rows, n, ...]."""
        own = pooled.shape[-1] - sum(self.sizes)
        parts = pooled[:, own:].split(self.sizes, -1)
        pictures = [part.unflatten(-1, like.shape[1:]) for part, like in zip(parts, self.cond, strict=True)]
        return pooled[:, :own] if own else None, pictures

    def digest(self) -> bytes:
        """Bytes that identify the images."""
        return b"".join(embedding.float().cpu().numpy().tobytes() for embedding in self.cond)

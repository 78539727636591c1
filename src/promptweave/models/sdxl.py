"""Stable Diffusion XL: two text encoders, a pooled vector and the picture's size as conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from promptweave.core.control import Text
from promptweave.models.pipeline import all_empty
from promptweave.models.unet import UNetModel


class SDXLModel(UNetModel):
    """A StableDiffusionXLPipeline behind the door of `models.base.Model`; the refiner is not needed.

    Both tokenizers have CLIP's vocabulary, so a word has the same tokens in both and one column in the attention maps.
    """

    usual = (50, 5.0)
    encoders = ("text_encoder", "text_encoder_2")

    def __init__(self, pipeline: Any, name: str) -> None:
        super().__init__(pipeline, name)
        if pipeline.tokenizer.get_vocab() != pipeline.tokenizer_2.get_vocab():
            raise ValueError(
                "The two tokenizers of an SDXL pipeline must have one vocabulary, or words have two places. "
                f"Received {len(pipeline.tokenizer)} and {len(pipeline.tokenizer_2)} pieces."
            )

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        # As in the pipeline: nothing to lead away from is a text of zeros, if the model was trained so.
        away = None if all_empty(negative) else list(negative)
        keys, uncond, pooled, uncond_pooled = self.pipeline.encode_prompt(
            list(prompts), device=self.device, do_classifier_free_guidance=True, negative_prompt=away
        )
        keys, uncond, pooled, uncond_pooled = (x.to(self.dtype) for x in (keys, uncond, pooled, uncond_pooled))
        return Text(keys, keys, uncond, pooled, uncond_pooled)

    def _added(self, z: Tensor, pooled: Tensor | None) -> dict[str, Tensor] | None:
        assert pooled is not None  # `encode` gives it
        height, width = (side * self.factor for side in z.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], device=z.device, dtype=self.dtype)
        return {"text_embeds": pooled, "time_ids": sizes.expand(len(z), 6)}

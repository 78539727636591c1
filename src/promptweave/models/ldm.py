"""The original latent diffusion text-to-image model (Rombach et al. 2021): a BERT-like encoder, VQ or KL latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from promptweave.core.control import Text
from promptweave.models.unet import UNetModel
from promptweave.words import Words

LENGTH = 77  # tokens that the text encoder reads, whatever its tokenizer would allow


class LDMModel(UNetModel):
    """An LDMTextToImagePipeline as a `models.base.Model`."""

    usual = (50, 5.0)
    encoders = ("bert",)
    autoencoder = "vqvae"

    def words(self, prompt: str) -> Words:
        return Words(prompt, self.tokenizer, at_most=LENGTH)

    def _text(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        states = [self._read(list(part)) for part in (prompts, negative)]
        return Text(states[0], states[1])

    def _read(self, prompts: list[str]) -> torch.Tensor:
        options = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "return_tensors": "pt"}
        ids = self.tokenizer(prompts, **options).input_ids
        return self.pipeline.bert(ids.to(self.device))[0].to(self.dtype)

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
    chunkable = False
    encoders = ("bert",)
    autoencoder = "vqvae"

    def _read_words(self, prompt: str, allow_empty: bool) -> Words:
        return Words(prompt, self.tokenizer, at_most=LENGTH, vectors=False, allow_empty=allow_empty)

    def _text(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        states = [self._read(part) for part in (prompts, negative)]
        return Text(states[0], states[1])

    def _read(self, prompts: Sequence[str]) -> torch.Tensor:
        ids = torch.tensor([self._words(prompt, True).ids for prompt in prompts])
        return self.pipeline.bert(ids.to(self.device))[0].to(self.dtype)

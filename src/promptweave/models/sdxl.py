"""Stable Diffusion XL: two text encoders, with a pooled vector and the image's size as further conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from promptweave.core.control import Text
from promptweave.models.unet import UNetModel


class SDXLModel(UNetModel):
    """A StableDiffusionXLPipeline as a `models.base.Model`; the refiner is not used.

    Both tokenizers have CLIP's vocabulary, so a word has the same tokens in both and one column in the attention maps.
    """

    usual = (50, 5.0)
    encoders = ("text_encoder", "text_encoder_2")

    def __init__(self, pipeline: Any, name: str) -> None:
        super().__init__(pipeline, name)
        self._sizes: dict[
            tuple[int, int, torch.device, torch.dtype], Tensor
        ] = {}  # of the size that was last asked for
        if pipeline.tokenizer.get_vocab() != pipeline.tokenizer_2.get_vocab():
            raise ValueError(
                "The two tokenizers of an SDXL pipeline must have one vocabulary, so that a word has one position. "
                f"Received {len(pipeline.tokenizer)} and {len(pipeline.tokenizer_2)} pieces. "
                "Load a pipeline whose tokenizers match, and textual inversions into both."
            )

    def _text(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        keys, pooled = self._read(prompts)
        uncond, uncond_pooled = self._read(negative)
        # As in the pipeline: without a negative prompt, it is a text of zeros if the model was trained so.
        if not any(map(str.strip, negative)) and self.pipeline.config.get("force_zeros_for_empty_prompt"):
            uncond, uncond_pooled = torch.zeros_like(uncond), torch.zeros_like(uncond_pooled)
        return Text(keys, uncond, pooled, uncond_pooled)

    def _read(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The concatenated states of both encoders, and the second one's pooled vector of the first chunk."""
        pipeline, states, pooled = self.pipeline, list[Tensor](), None
        for prompt in prompts:
            self._check_columns(prompt)
        for tokenizer, encoder in (
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        ):

            def run(ids: Tensor, encoder: Any = encoder) -> tuple[Tensor, Tensor | None]:
                output = encoder(ids.to(self.device), output_hidden_states=True)
                return output.hidden_states[-2], output[0]

            found, pooled = self.reading.encode(prompts, tokenizer, run)
            states.append(found)
        assert pooled is not None
        return torch.cat(states, -1).to(self.dtype), pooled.to(self.dtype)

    def _check_columns(self, prompt: str) -> None:
        """Raise ValueError if the encoders read a prompt as different tokens: one of them lacks an embedding."""
        first, second = (
            self.reading.words(prompt, tokenizer, allow_empty=True)
            for tokenizer in (self.pipeline.tokenizer, self.pipeline.tokenizer_2)
        )
        differ = [a.text for a, b in zip(first.units, second.units, strict=True) if a.tokens != b.tokens]
        if differ:
            raise ValueError(
                f"Both text encoders of an SDXL pipeline must read a word as the same tokens. Received {differ[0]!r}, "
                f"which has {len(first.find(differ[0]))} and {len(second.find(differ[0]))}. Load its textual inversion "
                "into both: load_textual_inversion(..., text_encoder=pipeline.text_encoder_2, "
                "tokenizer=pipeline.tokenizer_2)."
            )

    def _added(self, z: Tensor, pooled: Tensor | None) -> dict[str, Any] | None:
        assert pooled is not None  # `encode` gives it
        height, width = (side * self.factor for side in z.shape[-2:])
        key = (height, width, z.device, self.dtype)
        if key not in self._sizes:
            numbers = [height, width, 0, 0, height, width]
            self._sizes = {key: torch.tensor(numbers, device=z.device, dtype=self.dtype)}
        return {"text_embeds": pooled, "time_ids": self._sizes[key].expand(len(z), 6)}

"""Long prompts, read in chunks, and prompt weights, for the CLIP encoders of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from promptweave.words import Words
from promptweave.words.emphasis import Emphasis, parse


@dataclass(frozen=True)
class Reading:
    """How prompts are read: in how many `chunks`, each as long as the encoder reads, and with `weights` in brackets."""

    chunks: int = 1
    weights: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.chunks, bool) or self.chunks < 1:
            raise ValueError(f"chunks must be a whole number, at least 1. Received {self.chunks!r}.")

    @property
    def plain(self) -> bool:
        """Whether prompts are read as the pipeline itself does."""
        return self == Reading()

    def parse(self, prompt: str) -> Emphasis:
        """The prompt without brackets, if they mean weights."""
        return parse(prompt) if self.weights else Emphasis(prompt, (1.0,) * len(prompt))

    def words(self, prompt: str, tokenizer: Any) -> Words:
        """The words of a prompt, each with its columns in the maps."""
        size = tokenizer.model_max_length - 2
        words = Words(self.parse(prompt).text, tokenizer, at_most=self.chunks * size + 2)
        return words.chunked(size) if self.chunks > 1 else words

    def encode(
        self, prompts: Sequence[str], tokenizer: Any, run: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    ) -> tuple[Tensor, Tensor | None]:
        """States [prompts, chunks x tokens, dim], and the pooled vectors of the first chunks [prompts, dim], if any.

        `run` encodes ids [n, tokens]. The states of a token are scaled by its weight, then those of the whole prompt by
        one factor that restores their mean magnitude. (The web user interfaces restore the mean, which may be 0.)
        """
        size = tokenizer.model_max_length - 2
        read = [self.parse(prompt) for prompt in prompts]
        ids, strengths = zip(*(self._tokens(emphasis, tokenizer, size) for emphasis in read), strict=True)
        states, pooled = run(torch.tensor(ids).flatten(0, 1))
        states = states.unflatten(0, (len(prompts), self.chunks)).flatten(1, 2)
        if self.weights:
            scale = torch.tensor(strengths, dtype=torch.float64).flatten(1).to(states)
            before = states.abs().mean((1, 2), keepdim=True)
            states = states * scale[..., None]
            states = states * (before / states.abs().mean((1, 2), keepdim=True).clamp(min=1e-12))
        return states, None if pooled is None else pooled.unflatten(0, (len(prompts), self.chunks))[:, 0]

    def _tokens(self, emphasis: Emphasis, tokenizer: Any, size: int) -> tuple[list[list[int]], list[list[float]]]:
        """Ids and weights [chunks, tokens] of a prompt."""
        whole = tokenizer(emphasis.text, truncation=False, verbose=False, return_offsets_mapping=True)
        body = list(zip(whole["input_ids"], whole["offset_mapping"], strict=True))[1:-1][: self.chunks * size]
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        ids: list[list[int]] = []
        strengths: list[list[float]] = []
        for first in range(0, self.chunks * size, size):
            part = body[first : first + size]
            closed = [end] + [pad] * (size - len(part))
            ids.append([tokenizer.bos_token_id, *(token for token, _ in part), *closed])
            scales = [emphasis.of(*span) for _, span in part]
            strengths.append([1.0, *scales, *[1.0] * (size + 1 - len(scales))])
        return ids, strengths

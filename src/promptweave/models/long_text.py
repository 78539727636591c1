"""How prompts are read: long ones in chunks, and with prompt weights, for the CLIP encoders of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from promptweave.words import Words
from promptweave.words.changes import at_end, phases
from promptweave.words.chunks import in_chunks
from promptweave.words.emphasis import Emphasis, parse
from promptweave.words.vectors import written_out


@dataclass(frozen=True)
class Reading:
    """How prompts are read: in how many `chunks`, each as long as the encoder reads, and with `weights` in brackets.

    There is one reading of a prompt, its `Words`: they hold the ids that the encoder gets, the weights of their states
    and the columns of each word.
    """

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
        """The prompt without its syntax, if it has any. Raises PromptSyntax."""
        return parse(prompt) if self.weights else Emphasis.none(prompt)

    def phases(self, prompt: str, steps: int) -> tuple[str, ...]:
        """The prompt at each of the steps of a run. Raises PromptSyntax."""
        return phases(prompt, steps) if self.weights else (prompt,) * steps

    def at_end(self, prompt: str) -> str:
        """The prompt after its last change."""
        return at_end(prompt) if self.weights else prompt

    def words(self, prompt: str, tokenizer: Any, *, allow_empty: bool = False) -> Words:
        """The words of a prompt, each with its columns in the maps."""
        read = self.parse(prompt)
        given: dict[str, Any] = {"allow_empty": allow_empty, "breaks": read.breaks}
        if self.weights:
            given["strengths"] = read.strengths
        if self.chunks == 1 and not read.breaks:
            return Words(read.text, tokenizer, **given)
        whole = len(tokenizer(written_out(read.text, tokenizer)[0], truncation=False, verbose=False)["input_ids"])
        words = Words(read.text, tokenizer, at_most=whole, **given)
        return in_chunks(words, tokenizer, tokenizer.model_max_length - 2, self.chunks)

    def encode(
        self, prompts: Sequence[str], tokenizer: Any, run: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    ) -> tuple[Tensor, Tensor | None]:
        """States [prompts, chunks x tokens, dim], and the pooled vectors of the first chunks [prompts, dim], if any.

        `run` encodes ids [n, tokens]. The states of a token are scaled by its weight, then those of the whole prompt by
        one factor that restores their mean magnitude. (The web user interfaces restore the mean, which may be 0.)
        """
        read = [self.words(prompt, tokenizer, allow_empty=True) for prompt in prompts]
        ids = torch.tensor([words.ids for words in read]).unflatten(1, (self.chunks, -1))
        states, pooled = run(ids.flatten(0, 1))
        states = states.unflatten(0, (len(prompts), self.chunks)).flatten(1, 2)
        if self.weights:
            scale = torch.ones(states.shape[:2], dtype=torch.float64)
            for row, words in enumerate(read):
                scale[row, list(words.places)] = torch.tensor(words.scales, dtype=torch.float64)
            before = states.abs().mean((1, 2), keepdim=True)
            states = states * scale.to(states)[..., None]
            states = states * (before / states.abs().mean((1, 2), keepdim=True).clamp(min=1e-12))
        return states, None if pooled is None else pooled.unflatten(0, (len(prompts), self.chunks))[:, 0]

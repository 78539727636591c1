"""The one accumulator of attention: sums over sites, heads and steps, never a list of maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.pattern import Pattern
from promptweave.core.rows import Rows
from promptweave.core.site import Site, Sites

Key = tuple[int, str, int]  # prompt, site ("" for all), step (-1 for all)


@dataclass(eq=False)
class Maps:
    """Sums of the conditional attention of some prompts at some sites of one grid, mean over heads.

    `weights` [tokens, channels] for each prompt makes weighted sums of the tokens' maps instead of all of them.
    `own`: read softmax(q k^T) of the row itself, whatever the controls before made of it.
    """

    sites: Sites
    prompts: tuple[int, ...]
    weights: Mapping[int, Float[Tensor, "tokens channels"]] | None = None
    own: bool = False
    by_site: bool = False
    by_step: bool = False
    sums: dict[Key, Float[Tensor, "images height width channels"]] = field(default_factory=dict[Key, Tensor])
    counts: dict[Key, int] = field(default_factory=dict[Key, int])

    def add(self, step: Step, site: Site, rows: Rows) -> None:
        """Add a site's maps, if it is one of ours."""
        if site not in self.sites:
            return
        for prompt in self.prompts:
            row = rows["cond"][prompt]
            pattern = Pattern.of(row.q, row.k) if self.own else row.pattern
            dense = pattern.dense
            attention = dense.to(torch.promote_types(dense.dtype, torch.float32)).mean(1)
            if self.weights is not None:
                attention = torch.matmul(attention, self.weights[prompt].to(attention))
            attention = attention.reshape(len(attention), *site.grid, attention.shape[-1])
            key = (prompt, site.name if self.by_site else "", step.index if self.by_step else -1)
            self.sums[key] = self.sums[key] + attention if key in self.sums else attention
            self.counts[key] = self.counts.get(key, 0) + 1

    def total(self, prompt: int) -> Float[Tensor, "images height width channels"]:
        """The sum over everything recorded for a prompt."""
        found = [value for key, value in self.sums.items() if key[0] == prompt]
        if not found:
            raise ValueError(
                f"No maps were recorded for prompt {prompt}: no site matched {self.sites}. Choose other sites."
            )
        total = found[0]
        for value in found[1:]:
            total = total + value
        return total

    def mean(self, prompt: int) -> Float[Tensor, "images height width channels"]:
        """The mean over sites, heads and steps; over all tokens it sums to 1 at each pixel."""
        count = sum(number for key, number in self.counts.items() if key[0] == prompt)
        return self.total(prompt) / count

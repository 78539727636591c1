"""The one accumulator of attention: sums over sites, heads and steps, never a list of maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.rows import Row, Rows
from promptweave.core.site import Site, Sites

Key = tuple[int, str, int]  # prompt, site ("" for all), step (-1 for all)


@dataclass(eq=False)
class Maps:
    """Sums of the conditional attention of some prompts at some sites of one grid, mean over heads.

    In a joint layer it is the image's attention to the text, a part of the whole: the rest of a pixel's attention is on
    the image.

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
            if self.own:  # a fresh pattern: the matrix is for us alone, and what the layer computes stays as it was
                row = replace(rows.original("cond", prompt), edited=None)
            attention = self._read(row, site, prompt)
            attention = attention.reshape(len(attention), *site.grid, attention.shape[-1])
            key = (prompt, site.name if self.by_site else "", step.index if self.by_step else -1)
            self.sums[key] = self.sums[key] + attention if key in self.sums else attention
            self.counts[key] = self.counts.get(key, 0) + 1

    def _read(self, row: Row, site: Site, prompt: int) -> Float[Tensor, "images queries channels"]:
        """Mean over heads of the image's attention to the text, weighted if weights were given."""
        weights = None if self.weights is None else self.weights[prompt]
        if site.image is None or site.text is None:
            dense = row.pattern.dense
            attention = dense.to(torch.promote_types(dense.dtype, torch.float32)).mean(1)
            return attention if weights is None else torch.matmul(attention, weights.to(attention))
        tokens = site.text.stop - site.text.start
        weights = torch.eye(tokens, device=row.q.device) if weights is None else weights
        wide = torch.zeros(row.k.shape[-2], weights.shape[-1], device=row.q.device, dtype=row.q.dtype)
        wide[site.text] = weights.to(wide)
        read = row.pattern.weigh(wide, row.q.shape[1], row.q.shape[-1])[..., site.image, :]
        return read.to(torch.promote_types(read.dtype, torch.float32)).mean(1)

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

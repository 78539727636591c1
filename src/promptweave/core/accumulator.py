"""The one accumulator of attention: sums over sites, heads and steps, never a list of maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.rows import Row, Rows
from promptweave.core.site import Site, Sites

Key = tuple[int, str, int]  # prompt, site (or its grid, such as "16x16", for all sites of it), step (-1 for all)


def grid_name(grid: tuple[int, int]) -> str:
    """Height x width.

    >>> grid_name((16, 24))
    '16x24'
    """
    return f"{grid[0]}x{grid[1]}"


@dataclass(eq=False)
class Maps:
    """Sums of the conditional attention of some prompts at some sites, a sum for each grid, mean over heads.

    In a joint layer it is the image's attention to the text, a part of the whole: the rest of a pixel's attention is on
    the image.

    `weights` [tokens, channels] for each prompt makes weighted sums of the tokens' maps instead of all of them.
    `own`: read softmax(q k^T) of the row itself, whatever the controls before made of it. `by_head` [images, heads,
    height, width, channels]. `steps`: those to be read, None: all. `of`: in a joint layer, the attention to the text or
    to the image's pixels. Reading changes no bit of what the layers compute.
    """

    sites: Sites
    prompts: tuple[int, ...]
    weights: Mapping[int, Float[Tensor, "tokens channels"]] | None = None
    own: bool = False
    by_site: bool = False
    by_step: bool = False
    by_head: bool = False
    steps: frozenset[int] | None = None
    of: Literal["text", "image"] = "text"
    sums: dict[Key, Float[Tensor, "images *heads height width channels"]] = field(default_factory=dict[Key, Tensor])
    counts: dict[Key, int] = field(default_factory=dict[Key, int])

    def add(self, step: Step, site: Site, rows: Rows) -> None:
        """Add a site's maps, if it is one of ours."""
        if site not in self.sites or (self.steps is not None and step.index not in self.steps):
            return
        for prompt in self.prompts:
            row = rows["cond"][prompt]
            if self.own:
                row = replace(rows.original("cond", prompt), edited=None)
            attention: Tensor = self._read(row, site, prompt)
            attention = attention.reshape(*attention.shape[:-2], *site.grid, attention.shape[-1])
            where = site.name if self.by_site else grid_name(site.grid)
            key = (prompt, where, step.index if self.by_step else -1)
            self.sums[key] = self.sums[key] + attention if key in self.sums else attention
            self.counts[key] = self.counts.get(key, 0) + 1

    def _read(self, row: Row, site: Site, prompt: int) -> Float[Tensor, "images *heads queries channels"]:
        """The image's attention to the text, weighted if weights were given."""
        weights = None if self.weights is None else self.weights[prompt]
        if site.image is None or site.text is None:
            dense = row.pattern.dense
            attention = self._headless(dense.to(torch.promote_types(dense.dtype, torch.float32)))
            return attention if weights is None else torch.matmul(attention, weights.to(attention))
        keys = site.text if self.of == "text" else site.image
        weights = torch.eye(keys.stop - keys.start, device=row.q.device) if weights is None else weights
        wide = torch.zeros(row.k.shape[-2], weights.shape[-1], device=row.q.device, dtype=row.q.dtype)
        wide[keys] = weights.to(wide)
        read = row.pattern.weigh(wide, row.q.shape[1], row.q.shape[-1])[..., site.image, :]
        return self._headless(read.to(torch.promote_types(read.dtype, torch.float32)))

    def _headless(self, attention: Tensor) -> Tensor:
        return attention if self.by_head else attention.mean(1)

    def keys(self, prompt: int, where: str | None = None, step: int | None = None) -> list[Key]:
        """What was recorded for a prompt, of one site or grid and of one step if they are given."""
        return [
            key
            for key in self.sums
            if key[0] == prompt and (where is None or key[1] == where) and (step is None or key[2] == step)
        ]

    def total(
        self, prompt: int, where: str | None = None, step: int | None = None
    ) -> Float[Tensor, "images *heads height width channels"]:
        """The sum over everything recorded for a prompt, or of one site or grid, and of one step."""
        found = self.keys(prompt, where, step)
        if not found:
            raise ValueError(
                f"No maps were recorded for prompt {prompt}: no site matched {self.sites}. Choose other sites."
                if where is None and step is None
                else f"No maps were recorded for prompt {prompt} at {where or 'any site'}, step {step}. "
                f"Recorded: {', '.join(sorted({key[1] for key in self.keys(prompt)}))}."
            )
        if len({self.sums[key].shape for key in found}) > 1:
            names = ", ".join(dict.fromkeys(key[1] for key in found))
            raise ValueError(f"Only maps of one shape can be summed. Received those of {names}. Name one of them.")
        total = self.sums[found[0]]
        for key in found[1:]:
            total = total + self.sums[key]
        return total

    def mean(
        self, prompt: int, where: str | None = None, step: int | None = None
    ) -> Float[Tensor, "images *heads height width channels"]:
        """The mean over sites, heads and steps; over all tokens it sums to 1 at each pixel."""
        return self.total(prompt, where, step) / self.count(prompt, where, step)

    def count(self, prompt: int, where: str | None = None, step: int | None = None) -> int:
        """How many maps the sum is of."""
        return sum(self.counts[key] for key in self.keys(prompt, where, step))

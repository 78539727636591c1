"""The one accumulator of attention: sums over sites, heads and steps, never a list of maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.precision import precision
from promptweave.core.rows import Row, Rows
from promptweave.core.site import Site, Sites

Together = tuple[tuple[int, ...], str, int]  # prompts, then the rest of a key
Key = tuple[int, str, int]  # prompt, site (or its grid, such as "16x16", for all sites of it), step (-1 for all)


def grid_name(grid: tuple[int, int]) -> str:
    """Height x width.

    >>> grid_name((16, 24))
    '16x24'
    """
    return f"{grid[0]}x{grid[1]}"


@dataclass(eq=False)
class Maps:
    """Sums of the conditional attention of some prompts at some sites: one sum per grid, averaged over heads.

    In a joint layer this is the image's attention to the text, which does not sum to 1: a pixel attends to the image
    as well.

    `weights` [tokens, channels] of each prompt: keep weighted sums of the token maps instead of every token's map.
    `own`: read softmax(q k^T) of the row itself, ignoring what earlier controls made of it. `by_site`, `by_step` and
    `by_head` keep sites, steps and heads apart; by head, maps are [images, heads, height, width, channels]. `steps`:
    indices of the steps to read; None: all. `of`: in a joint layer, read the attention to the text or to the image's
    pixels. Reading never changes what the layers compute, down to the last bit.
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
    counts: dict[Key, int] = field(default_factory=dict[Key, int])
    _sums: dict[Key, Tensor] = field(default_factory=dict[Key, Tensor])
    _together: dict[Together, Tensor] = field(default_factory=dict[Together, Tensor])  # of several prompts at once
    _columns: dict[Together, Tensor] = field(default_factory=dict[Together, Tensor])

    @property
    def sums(self) -> dict[Key, Float[Tensor, "images *heads height width channels"]]:
        """The sum under each key, computed when it is read: reading never changes how later maps are added up."""
        return {key: self._sum(key) for key in self.counts}

    def _sum(self, key: Key) -> Tensor:
        prompt, *rest = key
        alone = self._sums.get(key)
        for (prompts, *others), found in self._together.items():
            if prompt in prompts and others == rest:
                assert self.weights is not None
                part = found[prompts.index(prompt)][..., : self.weights[prompt].shape[-1]]
                alone = part if alone is None else alone + part
        assert alone is not None
        return alone

    def offload(self, step: int) -> None:
        """Move the sums of a step, which is over, to main memory."""
        self._sums = {key: part.cpu() if key[2] == step else part for key, part in self._sums.items()}
        self._together = {key: part.cpu() if key[2] == step else part for key, part in self._together.items()}

    def wants(self, step: Step, site: Site) -> bool:
        """Whether the maps of a site are added in a step."""
        return site in self.sites and (self.steps is None or step.index in self.steps)

    def add(self, step: Step, site: Site, rows: Rows) -> None:
        """Add the maps of a site, unless its site or step was not asked for."""
        if not self.wants(step, site):
            return
        where = site.name if self.by_site else grid_name(site.grid)
        at = step.index if self.by_step else -1
        fused = self._fused(site, rows)
        if fused:
            self._add_together(fused, site, rows, where, at)
        for prompt in self.prompts:
            key = (prompt, where, at)
            if prompt not in fused:
                row = rows["cond"][prompt]
                if self.own:
                    row = replace(rows.original("cond", prompt), edited=None)
                attention: Tensor = self._read(row, site, prompt)
                attention = attention.reshape(*attention.shape[:-2], *site.grid, attention.shape[-1])
                self._sums[key] = self._sums[key] + attention if key in self._sums else attention
            self.counts[key] = self.counts.get(key, 0) + 1

    def _fused(self, site: Site, rows: Rows) -> tuple[int, ...]:
        """Consecutive prompts of the batch whose weighted maps one fused call can compute: no gradient is needed, no
        control has changed the rows, and the channels fit into the width of a head."""
        if self.weights is None or self.by_head or site.image is not None or rows.q.requires_grad:
            return ()
        found: list[int] = []
        for prompt in self.prompts:
            known = prompt >= rows.layout.first and (self.own or not rows.changed("cond", prompt))
            if known and self.weights[prompt].shape[-1] <= rows.q.shape[-1] and (not found or prompt == found[-1] + 1):
                found.append(prompt)
        return tuple(found)

    def _add_together(self, prompts: tuple[int, ...], site: Site, rows: Rows, where: str, at: int) -> None:
        """Compute A @ weights for all of these prompts in one call, in which the weights are the values."""
        assert self.weights is not None
        first, last = (rows.layout.slice("cond", prompt) for prompt in (prompts[0], prompts[-1]))
        q, k = rows.q[first.start : last.stop], rows.k[first.start : last.stop]
        of = (prompts, f"{q.shape[-1]} {q.dtype}", rows.layout.images)
        if of not in self._columns:
            width = q.shape[-1]
            padded = [F.pad(self.weights[p], (0, width - self.weights[p].shape[-1])).to(q) for p in prompts]
            self._columns[of] = torch.stack(padded).repeat_interleave(rows.layout.images, 0)[:, None]
        columns = self._columns[of].expand(-1, q.shape[1], -1, -1)
        read = F.scaled_dot_product_attention(q, k, columns).mean(1, dtype=precision(q.dtype))
        read = read.view(len(prompts), rows.layout.images, *site.grid, read.shape[-1])
        here = (prompts, where, at)
        self._together[here] = self._together[here] + read if here in self._together else read

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
        """The keys of a prompt's sums; only those of one site or grid (`where`) and of one step, if these are given."""
        return [
            key
            for key in self.counts
            if key[0] == prompt and (where is None or key[1] == where) and (step is None or key[2] == step)
        ]

    def total(
        self, prompt: int, where: str | None = None, step: int | None = None
    ) -> Float[Tensor, "images *heads height width channels"]:
        """The sum of a prompt's maps; only of one site or grid (`where`) and of one step, if these are given.

        Raises ValueError if there are no such maps, or if they differ in shape.
        """
        found = self.keys(prompt, where, step)
        if not found:
            raise ValueError(
                f"No maps were recorded for prompt {prompt}: no site matched {self.sites}. Choose other sites."
                if where is None and step is None
                else f"No maps were recorded for prompt {prompt} at {where or 'any site'}, step {step}. "
                f"Recorded: {', '.join(sorted({key[1] for key in self.keys(prompt)}))}."
            )
        sums = [self._sum(key) for key in found]
        if len({part.shape for part in sums}) > 1:
            names = ", ".join(dict.fromkeys(key[1] for key in found))
            raise ValueError(f"Only maps of one shape can be summed. Received maps of {names}. Choose one of them.")
        total = sums[0]
        for part in sums[1:]:
            total = total + part
        return total

    def mean(
        self, prompt: int, where: str | None = None, step: int | None = None
    ) -> Float[Tensor, "images *heads height width channels"]:
        """The mean over sites, heads and steps; at each pixel of cross-attention, all tokens together sum to 1."""
        return self.total(prompt, where, step) / self.count(prompt, where, step)

    def count(self, prompt: int, where: str | None = None, step: int | None = None) -> int:
        """The number of maps in that sum."""
        return sum(self.counts[key] for key in self.keys(prompt, where, step))

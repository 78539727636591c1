"""Equal rows of a batch, which need to be computed only once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Copies:
    """Which rows of a batch are equal. `runs` lists (rows, times) for consecutive parts of the batch: a part of `rows`
    rows repeats its first rows / times rows `times` times. Empty: all rows differ."""

    runs: tuple[tuple[int, int], ...] = ()

    @property
    def some(self) -> bool:
        """Whether any row is repeated."""
        return any(times > 1 for _, times in self.runs)

    def once(self, x: Tensor) -> Tensor:
        """The batch without repetitions."""
        parts = x.split([rows for rows, _ in self.runs])
        kept = [part[: rows // times] for part, (rows, times) in zip(parts, self.runs, strict=True)]
        return kept[0] if len(kept) == 1 else torch.cat(kept)

    def all(self, x: Tensor) -> Tensor:
        """The whole batch, from its rows without repetitions."""
        parts = x.split([rows // times for rows, times in self.runs])
        return torch.cat([part for part, (_, times) in zip(parts, self.runs, strict=True) for _ in range(times)])


ALL_DIFFERENT = Copies()

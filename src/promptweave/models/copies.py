"""Rows of a batch that are equal, so that what they have in common is computed once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Copies:
    """Which rows of a batch are equal: runs of (rows, times), each of them `times` copies, one after the other, of its
    first rows / times rows. Empty: all rows differ."""

    runs: tuple[tuple[int, int], ...] = ()

    @property
    def some(self) -> bool:
        """Whether anything is there twice."""
        return any(times > 1 for _, times in self.runs)

    def once(self, x: Tensor) -> Tensor:
        """The different rows."""
        parts = x.split([rows for rows, _ in self.runs])
        kept = [part[: rows // times] for part, (rows, times) in zip(parts, self.runs, strict=True)]
        return kept[0] if len(kept) == 1 else torch.cat(kept)

    def all(self, x: Tensor) -> Tensor:
        """All rows, from the different ones."""
        parts = x.split([rows // times for rows, times in self.runs])
        return torch.cat([part for part, (_, times) in zip(parts, self.runs, strict=True) for _ in range(times)])


ALL_DIFFERENT = Copies()

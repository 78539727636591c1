"""Noise schedules as tables of alpha_bar, the fraction of the image's variance left at a training time t."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from jaxtyping import Float64
from torch import Tensor

from promptweave.core.clock import Step

Prediction = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["leading", "trailing", "linspace"]


@dataclass(frozen=True, eq=False)
class Schedule:
    """A discrete noise schedule, and the times at which sampling visits it (DDIM, Song et al. 2021).

    `alpha_bar` [training steps T] falls from nearly 1; `final` is alpha_bar at the clean end (t < 0). `spacing` and
    `offset` choose the training times of S steps as diffusers does: "leading" takes k (T // S) + offset, "trailing"
    counts down from the last time, "linspace" spreads them evenly over all.
    """

    alpha_bar: Float64[Tensor, "times"]
    prediction: Prediction = "epsilon"
    spacing: Spacing = "leading"
    offset: int = 0
    final: float = 1.0

    def steps(self, count: int) -> list[Step]:
        """The steps of a run, noisiest first. Raises ValueError unless 1 <= count <= T.

        >>> import torch
        >>> [s.t for s in Schedule(torch.linspace(1, 0.01, 1000).double(), offset=1).steps(4)]
        [751, 501, 251, 1]
        """
        size = len(self.alpha_bar)
        if isinstance(count, bool) or not 1 <= count <= size:
            raise ValueError(f"The number of steps must be a whole number from 1 to {size}. Received {count!r}.")
        stride = size // count
        if self.spacing == "leading":
            times = [k * stride + self.offset for k in reversed(range(count))]
        elif self.spacing == "trailing":
            apart = (size - size / count) - size  # as np.arange in diffusers, which decides where a half is rounded to
            times = [round(size + k * apart) - 1 for k in range(count)]
        else:
            times = [round(k * (size - 1) / max(1, count - 1)) for k in reversed(range(count))]
        times = [min(t, size - 1) for t in times]
        return [Step(i, count, t, t - stride) for i, t in enumerate(times)]

    def level(self, t: int | float) -> float:
        """alpha_bar at a training time; `final` for times before 0."""
        return self._levels[int(t)] if t >= 0 else self.final

    @cached_property
    def _levels(self) -> list[float]:
        return [float(level) for level in self.alpha_bar]

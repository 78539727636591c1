"""How much image and how much noise the latents of a run hold at each step, in the scale of its solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Latent = Float[Tensor, "images channels height width"]


@runtime_checkable
class Noisy(Protocol):
    """A solver that knows its noise levels. `rewinds`: whether a run may go back to an earlier step of it."""

    @property
    def rewinds(self) -> bool: ...

    def shares(self, t: int | float) -> tuple[float, float]:
        """The shares of image and noise in the latents at time `t`."""
        ...


@dataclass(frozen=True, eq=False)
class Noising:
    """Before step i the latents of an image x are `shares[i][0] * x + shares[i][1] * noise`.

    `shares` [steps + 1]: the last are those of the image, (1, 0). `noise`: what the run started from, of unit variance.
    `rewinds`: whether the solver can go back to an earlier step.
    """

    shares: tuple[tuple[float, float], ...]
    noise: Latent
    rewinds: bool

    def noised(self, x: Tensor, index: int, noise: Tensor) -> Tensor:
        """The latents of an image before step `index`; for the number of steps the image itself."""
        signal, sigma = self.shares[index]
        return x if index == len(self.shares) - 1 else signal * x + sigma * noise.to(x)

    def back(self, z: Tensor, index: int, earlier: int, noise: Tensor) -> Tensor:
        """Latents as they are before step `index`, with the noise added that they have before an `earlier` one: the
        forward process from one to the other."""
        (signal, sigma), (before, level) = self.shares[index], self.shares[earlier]
        kept = before / signal
        return kept * z + max(level**2 - (kept * sigma) ** 2, 0.0) ** 0.5 * noise.to(z)

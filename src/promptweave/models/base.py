"""What the rest of the library asks of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.control import Text
from promptweave.core.rows import Layout, Rows
from promptweave.core.schedule import Schedule
from promptweave.core.site import Site


@dataclass(frozen=True, eq=False)
class Tap:
    """What is done at each attention layer of a forward pass. `values`: other text for the values than for the keys."""

    layout: Layout
    edit: Callable[[Site, Rows], Rows]
    values: Tensor | None = None


@runtime_checkable
class Model(Protocol):
    """A text-to-image latent diffusion model."""

    name: str

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def factor(self) -> int:
        """Pixels per latent cell along a side."""
        ...

    @property
    def default_size(self) -> tuple[int, int]:
        """Height and width in pixels that the model was trained for."""
        ...

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        ...

    def words(self, prompt: str) -> Any:
        """The prompt's words and their tokens (`words.Words`)."""
        ...

    def encode(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        """Encode prompts and what guidance leads away from."""
        ...

    def sites(self, latent_grid: tuple[int, int]) -> tuple[Site, ...]:
        """The attention layers in execution order."""
        ...

    def map_grid(self, latent_grid: tuple[int, int]) -> tuple[int, int]:
        """The grid on which words are best localised."""
        ...

    def predict(
        self,
        z: Float[Tensor, "batch channels height width"],
        t: int,
        context: Float[Tensor, "batch tokens dim"],
        tap: Tap | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """The network's raw output; with `tap` under its edits."""
        ...

    def to_latent(self, pictures: Float[Tensor, "n height width 3"]) -> Float[Tensor, "n channels h w"]:
        """Encode pictures with values in [0, 1] (the mean of the posterior)."""
        ...

    def to_image(self, z: Float[Tensor, "n channels h w"]) -> Float[Tensor, "n height width 3"]:
        """Decode to pictures with values in [0, 1]."""
        ...

    def fingerprint(self) -> str:
        """A short hash of the weights."""
        ...

"""The interface between networks and the rest of the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Text
from promptweave.core.features import Block
from promptweave.core.schedule import Schedule
from promptweave.core.site import Site, Sites
from promptweave.core.tapping import Tap
from promptweave.models.copies import ALL_DIFFERENT, Copies


class ModelError(ValueError):
    """Raised for a model that cannot be found, read or used."""


@runtime_checkable
class Solver(Protocol):
    """A solver from noise to the image in `steps`, with latents in a scale of its own."""

    steps: Sequence[Step]

    def start(self, noise: Tensor) -> Tensor:
        """The first latent, from noise of unit variance."""
        ...

    def calls(self, step: Step) -> Sequence[int | float]:
        """The times at which a step calls the network; a second-order solver has two."""
        ...

    def scale(self, z: Tensor, t: int | float) -> Tensor:
        """The network's input for a latent."""
        ...

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """The latent after a network call at time `t` with this `output`."""
        ...


@runtime_checkable
class Model(Protocol):
    """A text-to-image latent diffusion model."""

    name: str

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def schedule(self) -> Schedule:
        """The noise schedule of a diffusion model, for DDIM and for inversion."""
        ...

    @property
    def scheduler(self) -> str:
        """The name of the solver: "ddim", "euler", ..."""
        ...

    @property
    def reading(self) -> Any:
        """How prompts are read, with `chunks` and `weights` (`long_text.Reading`)."""
        ...

    @property
    def defaults(self) -> tuple[int, int | float]:
        """Steps and guidance that suit the model."""
        ...

    @property
    def guided(self) -> bool:
        """Whether guidance needs an unconditional prediction; otherwise it is an input of the network."""
        ...

    @property
    def distilled(self) -> bool:
        """Whether the model was trained to do without classifier-free guidance; guidance 0 then means none."""
        ...

    def solver(self, steps: int, shape: tuple[int, ...], prompts: int, seed: int) -> Solver | None:
        """The model's solver; None: DDIM on `schedule`.

        `shape`: that of the starting noise, [images, channels, h, w]. A solver that adds noise adds the same for all
        prompts; for image i it comes from the generator, seeded with seed + i, that drew the starting noise.
        """
        ...

    @property
    def factor(self) -> int:
        """Pixels per latent cell along a side."""
        ...

    @property
    def multiple(self) -> int:
        """Number of pixels that height and width must be multiples of."""
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

    def phases(self, prompt: str, steps: int) -> Sequence[str]:
        """The prompt at each of the steps of a run, if its syntax makes it change."""
        ...

    def at_end(self, prompt: str) -> str:
        """The prompt after its last change, whose words `words` gives."""
        ...

    def check_length(self, text: str, name: str, steps: int = 1) -> None:
        """Raise PromptTooLong for a text that the model would cut in a run of `steps`; `name`: what it is."""
        ...

    def encode(self, prompts: Sequence[str], negative: Sequence[str], *, truncate: bool = False) -> Text:
        """Encode prompts and negative prompts. Raises PromptTooLong unless the model may `truncate` them."""
        ...

    def check(self) -> None:
        """Raise ModelError if something is switched on in the network under which edits would not reach every layer."""
        ...

    def kernels(self) -> dict[str, Any]:
        """For reports: the attention backend, if the user chose one, and what it left to PyTorch's own."""
        ...

    def sites(self, latent_grid: tuple[int, int]) -> tuple[Site, ...]:
        """The attention layers in execution order."""
        ...

    def blocks(self) -> tuple[Block, ...]:
        """The residual blocks in execution order; empty if the network has none."""
        ...

    def map_grid(self, latent_grid: tuple[int, int]) -> tuple[int, int]:
        """The grid (height, width) that localises words best."""
        ...

    def map_sites(self, latent_grid: tuple[int, int]) -> Sites:
        """The layers of that grid that localise words best."""
        ...

    def predict(
        self,
        z: Float[Tensor, "batch channels height width"],
        t: int | float | Float[Tensor, "batch"],
        context: Float[Tensor, "batch tokens dim"],
        tap: Tap | None = None,
        *,
        pooled: Float[Tensor, "batch pooled"] | None = None,
        guidance: int | float | Float[Tensor, "batch"] = 1.0,
        copies: Copies = ALL_DIFFERENT,
    ) -> Float[Tensor, "batch channels height width"]:
        """The network's raw output, under the edits of `tap` if given. `guidance`: for networks with it as an input.

        `copies`: which rows of `z` are equal, which can save computation.
        """
        ...

    def to_latent(self, pictures: Float[Tensor, "n height width 3"]) -> Float[Tensor, "n channels h w"]:
        """Encode images with values in [0, 1] (the mean of the posterior)."""
        ...

    def to_image(self, z: Float[Tensor, "n channels h w"]) -> Float[Tensor, "n height width 3"]:
        """Decode to images with values in [0, 1]."""
        ...

    def fingerprint(self) -> str:
        """A short hash of the weights."""
        ...

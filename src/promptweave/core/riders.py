"""Riders: tokens that go along with the text of a joint network and read the image, while nothing reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from promptweave.core.site import Site


@dataclass(frozen=True, eq=False)
class Ride:
    """Riders at a joint layer, for each image of each computed prompt, prompt by prompt: `outputs` of their attention,
    before the output projection, and their `keys` by head; the image's outputs and queries.

    The image's queries are normalised and turned by its positions; its outputs are those that the layer gave.
    """

    outputs: Float[Tensor, "rows riders channels"]
    keys: Float[Tensor, "rows heads riders dim"]
    image_outputs: Float[Tensor, "rows pixels channels"]
    image_queries: Float[Tensor, "rows heads pixels dim"]


@dataclass(frozen=True, eq=False)
class Riders:
    """`tokens`: encoded as a prompt's are. `look` is called at each joint layer whose text has a stream of its own."""

    tokens: Float[Tensor, "riders dim"]
    look: Callable[[Site, Ride], None]

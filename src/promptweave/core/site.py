"""Sites: the attention layers of a network, each with its name and its shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from promptweave.core.pattern import Pattern

Kind = Literal["self", "cross", "joint"]
Place = Literal["down", "mid", "up", "stream"]


@dataclass(frozen=True)
class Site:
    """One attention layer.

    `place`: "down", "mid" or "up" in a UNet, "stream" in a transformer. `index` counts in execution order. `grid` is
    the (height, width) of its pixels, the image queries; `dim` the width of a head; `path` that of the module in its
    network. `text` and `image` are the slices of a joint layer's sequence, None in self- and cross-attention. `roles`:
    what is known of its part in editing (`core.roles`).
    """

    name: str
    kind: Kind
    place: Place
    index: int
    heads: int
    grid: tuple[int, int]
    path: str = ""
    text: slice | None = None
    image: slice | None = None
    dim: int = 0
    roles: tuple[str, ...] = ()

    @property
    def queries(self) -> int:
        """Number of image queries."""
        return self.grid[0] * self.grid[1]

    def widen(self, tokens: Float[Tensor, "*shape"]) -> Float[Tensor, "*wide"]:
        """Extend a token map [text, text], or token weights [text], to all keys of a joint layer: the identity on the
        image keys. Elsewhere it stays as it is."""
        if self.image is None or self.text is None:
            return tokens
        size = self.queries + tokens.shape[-1]
        if tokens.ndim == 1:
            wide = torch.ones(size, device=tokens.device, dtype=tokens.dtype)
            wide[self.text] = tokens
        else:
            wide = torch.eye(size, device=tokens.device, dtype=tokens.dtype)
            wide[self.text, self.text] = tokens
        return wide

    def of_image(self, x: Float[Tensor, "*batch tokens dim"]) -> Float[Tensor, "*batch pixels dim"]:
        """The image tokens of a joint layer; elsewhere all tokens."""
        return x if self.image is None else x[..., self.image, :]

    def with_image(
        self, own: Float[Tensor, "*batch tokens dim"], image: Float[Tensor, "*batch pixels dim"]
    ) -> Float[Tensor, "*batch tokens dim"]:
        """In a joint layer, `image` for the image tokens and `own` for the text tokens; elsewhere just `image`."""
        if self.image is None or self.text is None:
            return image
        parts = {self.image.start: image, self.text.start: own[..., self.text, :]}
        return torch.cat([parts[start] for start in sorted(parts)], -2)

    def on_image(self, new: Pattern, old: Pattern) -> Pattern:
        """In a joint layer, `new` for the image queries and `old` for the text queries; elsewhere just `new`."""
        if self.image is None or self.text is None:
            return new
        sample = new.terms[0].kernel
        gate = torch.zeros(self.queries + (self.text.stop - self.text.start), device=sample.device, dtype=sample.dtype)
        gate[self.image] = 1
        return new.gated(gate) + old.gated(1 - gate)


@dataclass(frozen=True)
class Sites:
    """A predicate on sites: `site in Sites("cross", max_queries=256)`. A field that is None matches every site."""

    kind: Kind | None = None
    places: tuple[Place, ...] | None = None
    grid: tuple[int, int] | None = None
    max_queries: int | None = None
    names: tuple[str, ...] | None = None

    def __contains__(self, site: Site) -> bool:
        return (
            (self.kind is None or site.kind == self.kind)
            and (self.places is None or site.place in self.places)
            and (self.grid is None or site.grid == self.grid)
            and (self.max_queries is None or site.queries <= self.max_queries)
            and (self.names is None or site.name in self.names)
        )

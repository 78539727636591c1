"""Where: the attention layers of a network, each with its address and its shape."""

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
    """One attention layer. `index` counts in execution order; `grid` is (height, width) of the queries' pixels; `dim`
    is the width of a head.

    `text` and `image` are the slices of a joint layer's sequence; None in a self- or cross-attention layer.
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

    @property
    def queries(self) -> int:
        """Number of image queries."""
        return self.grid[0] * self.grid[1]

    def widen(self, tokens: Float[Tensor, "*shape"]) -> Float[Tensor, "*wide"]:
        """A token map or token weights on the text keys of a joint layer, the identity on its image keys."""
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
        """The image's tokens of a joint layer; everything elsewhere."""
        return x if self.image is None else x[..., self.image, :]

    def with_image(
        self, own: Float[Tensor, "*batch tokens dim"], image: Float[Tensor, "*batch pixels dim"]
    ) -> Float[Tensor, "*batch tokens dim"]:
        """`image` for the image's tokens of a joint layer, `own` for the text's; `image` alone elsewhere."""
        if self.image is None or self.text is None:
            return image
        parts = {self.image.start: image, self.text.start: own[..., self.text, :]}
        return torch.cat([parts[start] for start in sorted(parts)], -2)

    def on_image(self, new: Pattern, old: Pattern) -> Pattern:
        """`new` for the image queries of a joint layer and `old` for its text queries; `new` elsewhere."""
        if self.image is None or self.text is None:
            return new
        sample = new.terms[0].kernel
        gate = torch.zeros(self.queries + (self.text.stop - self.text.start), device=sample.device, dtype=sample.dtype)
        gate[self.image] = 1
        return new.gated(gate) + old.gated(1 - gate)


@dataclass(frozen=True)
class Sites:
    """A predicate on sites: `site in Sites("cross", max_queries=256)`."""

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

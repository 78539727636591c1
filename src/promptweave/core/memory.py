"""A cache of what stays the same from step to step of a run: the encoded text, and each layer's projections of it.

Keys and values of cross-attention depend on the text alone, which most runs never change; so do the values times a
token map. They are computed once and reused for as long as their inputs are the very same tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import is_
from typing import Any, TypeVar

from torch import Tensor

MATRICES = 32  # products cached per layer; a bound for controls that make new token maps in every step

Made = TypeVar("Made")
Key = tuple[int, int, int]
Product = tuple[Tensor, Tensor, Tensor]
Projected = tuple[Tensor, Tensor]  # keys and values
Gathered = tuple[Any, list[Tensor], Projected]


@dataclass(eq=False)
class Layer:
    """A layer's keys and values of a text, and the products of token maps with its values."""

    context: Tensor  # the text of the keys
    text: Tensor  # the text of the values
    k: Tensor
    v: Tensor
    products: dict[Key, Product] = field(default_factory=dict[Key, Product])
    gathered: list[Gathered] = field(default_factory=list[Gathered])

    @property
    def both(self) -> Projected:
        """Keys and values."""
        return self.k, self.v

    def product(self, tokens: Tensor, v: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """`tokens` times `v`, which `make` computes when it is asked for first."""
        key = (id(tokens), v.data_ptr(), len(v))
        found = self.products.get(key)
        if found is None or found[0] is not tokens:
            if len(self.products) >= MATRICES:
                self.products.pop(next(iter(self.products)))
            found = self.products[key] = (tokens, v, make())  # keeps both alive, so that no other takes their place
        return found[2]

    def rows(self, route: Any, recorded: list[Tensor], make: Callable[[], Projected]) -> Projected:
        """The keys and values that a route gathers, computed at the first request; `recorded`: keys that it reads."""
        for known, kept, made in self.gathered:
            if known is route and len(kept) == len(recorded) and all(map(is_, kept, recorded)):
                return made
        if len(self.gathered) >= MATRICES:
            self.gathered.pop(0)
        made = make()
        self.gathered.append((route, recorded, made))
        return made


Stacked = tuple[tuple[Tensor, ...], Tensor]


@dataclass(eq=False)
class Memory:
    """The cache of one run."""

    made: dict[int, tuple[Any, Any]] = field(default_factory=dict[int, tuple[Any, Any]])
    stacks: dict[str, Stacked] = field(default_factory=dict[str, Stacked])
    layers: dict[str, Layer] = field(default_factory=dict[str, Layer])
    plans: dict[Any, dict[str, Any]] = field(default_factory=dict[Any, dict[str, Any]])  # `core.routes`, by site
    processors: dict[str, Any] = field(default_factory=dict[str, Any])  # by the path of a layer

    def once(self, given: Made, make: Callable[[], Made]) -> Made:
        """What `make` returns for an object, computed once."""
        found = self.made.get(id(given))
        if found is None or found[0] is not given:
            found = self.made[id(given)] = (given, make())
        return found[1]

    def stacked(self, name: str, parts: tuple[Tensor, ...], make: Callable[[], Tensor]) -> Tensor:
        """The batch that `make` builds of these tensors; the same tensor for as long as they are the same."""
        found = self.stacks.get(name)
        if found is None or [*map(id, found[0])] != [*map(id, parts)]:
            found = self.stacks[name] = (parts, make())
        return found[1]

    def layer(self, path: str, context: Tensor, text: Tensor, make: Callable[[], Projected]) -> Layer:
        """The keys and values of a layer; `make` computes them when its texts are new."""
        found = self.layers.get(path)
        if found is None or found.context is not context or found.text is not text:
            found = self.layers[path] = Layer(context, text, *make())
        return found

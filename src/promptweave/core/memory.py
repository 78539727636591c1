"""What stays the same from step to step of a run, kept: the text's rows, and what each layer makes of them.

Keys and values of cross-attention come from the text alone, which most runs never change, and so do values times a
matrix of tokens. They are computed once and found again as long as the very same tensors are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

MATRICES = 32  # products that a layer keeps at most; a control that makes new matrices in every step finds none again


Kept = TypeVar("Kept")
Key = tuple[int, int, int]
Product = tuple[Tensor, Tensor, Tensor]


@dataclass(eq=False)
class Layer:
    """A layer's keys and values of a text, and its values times matrices of tokens."""

    context: Tensor
    text: Tensor  # that of the values
    k: Tensor
    v: Tensor
    products: dict[Key, Product] = field(default_factory=dict[Key, Product])

    def product(self, tokens: Tensor, v: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """What `make` gives for a row of the values and a matrix of tokens, which is asked once."""
        key = (id(tokens), v.data_ptr(), len(v))
        found = self.products.get(key)
        if found is None or found[0] is not tokens:
            if len(self.products) >= MATRICES:
                self.products.pop(next(iter(self.products)))
            found = self.products[key] = (tokens, v, make())  # holds on to both, so that their addresses stay theirs
        return found[2]


Stacked = tuple[tuple[Tensor, ...], Tensor]


@dataclass(eq=False)
class Memory:
    """Of one run."""

    made: dict[int, tuple[Any, Any]] = field(default_factory=dict[int, tuple[Any, Any]])
    stacks: dict[str, Stacked] = field(default_factory=dict[str, Stacked])
    layers: dict[str, Layer] = field(default_factory=dict[str, Layer])

    def once(self, given: Kept, make: Callable[[], Kept]) -> Kept:
        """What `make` makes of an object: the same in every step."""
        found = self.made.get(id(given))
        if found is None or found[0] is not given:
            found = self.made[id(given)] = (given, make())
        return found[1]

    def stacked(self, name: str, parts: tuple[Tensor, ...], make: Callable[[], Tensor]) -> Tensor:
        """The batch made of these tensors: the same one as long as they are the same."""
        found = self.stacks.get(name)
        if found is None or [*map(id, found[0])] != [*map(id, parts)]:
            found = self.stacks[name] = (parts, make())
        return found[1]

    def layer(self, path: str, context: Tensor, text: Tensor, make: Callable[[], tuple[Tensor, Tensor]]) -> Layer:
        """The keys and values of a layer."""
        found = self.layers.get(path)
        if found is None or found.context is not context or found.text is not text:
            found = self.layers[path] = Layer(context, text, *make())
        return found

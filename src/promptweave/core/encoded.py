"""Encoded prompts, as the layers of a network read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Text:
    """Encoded prompts [prompts, tokens, dim] as the layers read them: conditional, and unconditional for guidance.

    `pooled` [prompts, dim]: one vector per prompt, for networks that take one. `only_values`: the text that
    cross-attention projects its values from, if it differs from the text of the keys; None: both use `cond`.
    """

    cond: Float[Tensor, "prompts tokens dim"]
    uncond: Float[Tensor, "prompts tokens dim"]
    pooled: Float[Tensor, "prompts pooled"] | None = None
    uncond_pooled: Float[Tensor, "prompts pooled"] | None = None
    only_values: Float[Tensor, "prompts tokens dim"] | None = None

    @property
    def keys(self) -> Float[Tensor, "prompts tokens dim"]:
        """The text that the keys are projected from."""
        return self.cond

    @property
    def values(self) -> Float[Tensor, "prompts tokens dim"]:
        """The text that the values are projected from."""
        return self.cond if self.only_values is None else self.only_values

    def with_cond(self, cond: Float[Tensor, "prompts tokens dim"]) -> Text:
        """Replace the text of both keys and values."""
        return replace(self, cond=cond, only_values=None)

    def with_keys(self, keys: Float[Tensor, "prompts tokens dim"]) -> Text:
        """Replace the text of the keys; the values keep theirs."""
        return replace(self, cond=keys, only_values=self.values)

    def with_values(self, values: Float[Tensor, "prompts tokens dim"]) -> Text:
        """Replace the text of the values; the keys keep theirs."""
        return replace(self, only_values=values)

    def with_uncond(self, uncond: Float[Tensor, "prompts tokens dim"]) -> Text:
        """Replace the text of the unconditional half of guidance."""
        return replace(self, uncond=uncond)

    def with_pooled(self, pooled: Tensor | None, uncond_pooled: Tensor | None) -> Text:
        """Replace the pooled vectors."""
        return replace(self, pooled=pooled, uncond_pooled=uncond_pooled)

    def repeated(self, prompts: int) -> Text:
        """The text of a single prompt, repeated for `prompts` prompts."""

        def many(x: Tensor | None) -> Any:
            return None if x is None else x.expand(prompts, *x.shape[1:])

        return Text(
            many(self.cond), many(self.uncond), many(self.pooled), many(self.uncond_pooled), many(self.only_values)
        )


class Conditioned:
    """What a control makes of a text: the same object for as long as the text is the same, so that a layer's keys and
    values of it are computed once."""

    def __init__(self) -> None:
        self._made: tuple[Any, Text, Text] | None = None

    def __call__(self, text: Text, make: Callable[[], Text], state: Any = None) -> Text:
        """The changed text, which `make` computes when the text, or the `state` of the change, is another."""
        made = self._made
        if made is None or made[0] != state or made[1] is not text:
            made = self._made = (state, text, make())
        return made[2]

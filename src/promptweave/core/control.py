"""A method and its run: controls are parameters, hooks are one run of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.maps import Maps
from promptweave.core.rows import Rows
from promptweave.core.site import Site, Sites

Latents = Float[Tensor, "prompts images channels height width"]
Probe = Callable[[Tensor, Sites], Maps]


class NoEffect(ValueError):
    """An edit whose parameters make sure that it cannot change anything."""


@runtime_checkable
class Spans(Protocol):
    """What a control needs to know of a prompt's words (`words.Words`)."""

    @property
    def prompt(self) -> str: ...

    def find(self, selector: Any) -> tuple[int, ...]: ...


@dataclass(frozen=True, eq=False)
class Text:
    """Encoded prompts [prompts, tokens, dim]: what the layers' keys, and what their values, are projected from.

    `pooled` [prompts, dim]: one vector for a whole prompt, where the network takes one.
    """

    keys: Float[Tensor, "prompts tokens dim"]
    values: Float[Tensor, "prompts tokens dim"]
    uncond: Float[Tensor, "prompts tokens dim"]
    pooled: Float[Tensor, "prompts pooled"] | None = None
    uncond_pooled: Float[Tensor, "prompts pooled"] | None = None

    def with_(self, **changes: Tensor) -> Text:
        """A copy with changed fields."""
        return replace(self, **changes)


@dataclass(frozen=True, eq=False)
class Run:
    """Everything a control may know before the first step.

    Words are best localised at `map_sites`, all of `map_grid`. `recorded` are the prompts whose attention comes from a
    recording instead of the network.
    """

    prompts: tuple[str, ...]
    words: tuple[Any, ...]  # words.Words of each prompt
    steps: int
    sites: tuple[Site, ...]
    latent_grid: tuple[int, int]
    map_grid: tuple[int, int]
    map_sites: Sites
    images: int
    guidance: int | float
    tokens: int
    device: torch.device
    dtype: torch.dtype
    recorded: int = 0


class Hooks:
    """One run of a control: four places where it may act. Each hook takes what the control before it returned."""

    def condition(self, step: Step, text: Text) -> Text:
        """Change the encoded prompts of a step."""
        return text

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        """Change the latents [prompts, images, channels, h, w]; `probe(z, sites)` gives maps with a gradient."""
        return z

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        """Change attention at a site."""
        return rows

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        """Change the latents after the scheduler's step."""
        return z

    def report(self) -> dict[str, Any]:
        """What the run did, as JSON-able values."""
        return {}


@dataclass(frozen=True)
class Control:
    """The parameters of a method. `bind` checks them against a run and raises before anything is computed."""

    def bind(self, run: Run) -> Hooks:
        """One run of this control."""
        raise NotImplementedError

"""A method and its run: controls are parameters, hooks are one run of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Step
from promptweave.core.features import Block, Features
from promptweave.core.kept import Kept, everything
from promptweave.core.registry import register
from promptweave.core.rows import Rows
from promptweave.core.site import Site, Sites

Latents = Float[Tensor, "prompts images channels height width"]
Losses = Callable[[Maps], Float[Tensor, "prompts images"]]


@runtime_checkable
class Probe(Protocol):
    """A pass of the network for its maps alone: conditional, under the controls to the left."""

    def __call__(self, z: Tensor, sites: Sites) -> Maps:
        """The maps of the latents [prompts, images, channels, h, w]; they keep their gradient to `z`."""
        ...

    def gradient(
        self, z: Tensor, sites: Sites, losses: Losses, *, by_site: bool = False, by_head: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Losses of maps [prompts, images], and for each picture the gradient of its loss, to be taken off `z`.

        The gradient is that by latents of unit variance, as the network reads them, whatever the solver's own scale.
        Uses the network's gradient checkpointing if that is switched on, and scales the losses in half precision.
        """
        ...

    def predict(self, z: Tensor, text: Text, sites: Sites | None = None) -> tuple[Tensor, Maps | None]:
        """The network's output under another text, the same for all prompts that are computed, without any control;
        and the maps of its tokens at `sites`."""
        ...


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
class FirstPass:
    """The source before the edit: its final latents and, if it was made by a run, the maps of its words."""

    latents: Float[Tensor, "images channels height width"]
    maps: Maps | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """Everything a control may know before the first step.

    Words are best localised at `map_sites`, all of `map_grid`. `recorded` is the number of prompts whose attention
    comes from a recording instead of the network. `flow`: the network is a flow model's, and a time t is 1000 times
    the noise's share of the latent. `guided`: guidance needs an unconditional half, else it is an
    input of the network. `blocks` are a UNet's residual blocks. `first_pass` is there for controls that need it.
    `encode` encodes other texts, and `read` finds their words (`words.Words`).
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
    encode: Callable[[Sequence[str]], Text]
    read: Callable[[str], Any]
    recorded: int = 0
    seed: int = 0
    flow: bool = False
    guided: bool = True
    blocks: tuple[Block, ...] = ()
    first_pass: FirstPass | None = None

    def chosen(self, prompts: tuple[int, ...] | None) -> tuple[int, ...]:
        """Rows a control acts on: those asked for, else all that are computed."""
        computed = range(self.recorded, len(self.prompts))
        rows = tuple(computed) if prompts is None else prompts
        if not rows or not set(rows) <= set(computed):
            raise ValueError(
                f"prompts must name rows {self.recorded} to {len(self.prompts) - 1}, which are computed. "
                f"Received {rows}."
            )
        return rows


class Hooks:
    """One run of a control: seven places where it may act. Each hook takes what the control before it returned.

    Steps before `first_step` are not made.
    """

    first_step = 0

    def strength(self, step: Step, guidance: Float[Tensor, "prompts"]) -> Float[Tensor, "prompts"]:
        """Change the guidance of each prompt."""
        return guidance

    def condition(self, step: Step, text: Text) -> Text:
        """Change the encoded prompts of a step."""
        return text

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        """Change the latents [prompts, images, channels, h, w]; `probe` gives maps and gradients."""
        return z

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        """Change attention at a site."""
        return rows

    def feature(self, step: Step, block: Block, features: Features) -> Features:
        """Change what a residual block adds; called if a control overrides it."""
        return features

    def prediction(self, step: Step, guided: Tensor, uncond: Tensor | None) -> Tensor:
        """Change the output of the network after guidance [prompts that are computed, images, channels, h, w];
        `uncond` is its part without text, if guidance has one."""
        return guided

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        """Change the latents after the scheduler's step."""
        return z

    def report(self) -> dict[str, Any]:
        """What the run did, as JSON-able values."""
        return {}


@dataclass(frozen=True)
class Control:
    """The parameters of a method. `bind` checks them against a run and raises before anything is computed.

    What else of the library has to know about a control, the control says itself: what must be known of the source
    (`needs`, `for_source`), what a recording of the source must hold (`reads`), and which of its parameters count in a
    run (`idle`, `unread`). A control that cannot work on a recording (`run.recorded`) raises in `bind`.

    `needs`: what of the source must be known before the first step. "noise": the noise that it starts from; without
    it in the set, a given image is not walked back to noise. "latents" and "maps": its final latents and the maps of
    its words; it is made alone first, and `run.first_pass` has them.
    """

    needs: ClassVar[frozenset[Literal["noise", "latents", "maps"]]] = frozenset({"noise"})

    def __init_subclass__(cls, **options: Any) -> None:
        """Every class of controls is registered, so that recipes find it."""
        super().__init_subclass__(**options)
        register(cls)

    def bind(self, run: Run) -> Hooks:
        """One run of this control."""
        raise NotImplementedError

    def for_source(self) -> Control | None:
        """What of this control acts where the source is made alone: what says what the source is, else nothing."""
        return None

    def reads(self, run: Run) -> Kept:
        """What it reads of the source's attention; everything, unless a method knows better."""
        return everything(run)

    def idle(self, run: Run) -> bool:
        """Whether its parameters say that it changes nothing, such as a window without a step or a factor of 1."""
        return False

    def unread(self, run: Run) -> Mapping[str, str]:
        """Fields that this run does not read, and where they are read: "cross": "in networks with cross-attention"."""
        return {}

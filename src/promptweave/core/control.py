"""A method and its run: controls are parameters, hooks are one run of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Step
from promptweave.core.features import Block, Features
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


class NoEffect(ValueError):
    """An edit whose parameters make sure that it cannot change anything."""


@dataclass(frozen=True, eq=False)
class Text:
    """Encoded prompts [prompts, tokens, dim] as the layers read them, and what guidance has in their place.

    `pooled` [prompts, dim]: one vector for a whole prompt, where the network takes one. `only_values`: what the values
    of cross-attention are projected from where that is another text than the keys'; None: both are `cond`'s.
    """

    cond: Float[Tensor, "prompts tokens dim"]
    uncond: Float[Tensor, "prompts tokens dim"]
    pooled: Float[Tensor, "prompts pooled"] | None = None
    uncond_pooled: Float[Tensor, "prompts pooled"] | None = None
    only_values: Float[Tensor, "prompts tokens dim"] | None = None

    @property
    def keys(self) -> Float[Tensor, "prompts tokens dim"]:
        """What the keys are projected from."""
        return self.cond

    @property
    def values(self) -> Float[Tensor, "prompts tokens dim"]:
        """What the values are projected from."""
        return self.cond if self.only_values is None else self.only_values

    def with_cond(self, cond: Float[Tensor, "prompts tokens dim"]) -> Text:
        """Another text for keys and values alike."""
        return replace(self, cond=cond, only_values=None)

    def with_keys(self, keys: Float[Tensor, "prompts tokens dim"]) -> Text:
        """Another text for the keys; the values stay what they are."""
        return replace(self, cond=keys, only_values=self.values)

    def with_values(self, values: Float[Tensor, "prompts tokens dim"]) -> Text:
        """Another text for the values; the keys stay what they are."""
        return replace(self, only_values=values)

    def with_uncond(self, uncond: Float[Tensor, "prompts tokens dim"]) -> Text:
        """Another text for the unconditional half of guidance."""
        return replace(self, uncond=uncond)

    def with_pooled(self, pooled: Tensor | None, uncond_pooled: Tensor | None) -> Text:
        """Other vectors for whole prompts."""
        return replace(self, pooled=pooled, uncond_pooled=uncond_pooled)

    def repeated(self, prompts: int) -> Text:
        """One text for so many prompts."""

        def many(x: Tensor | None) -> Any:
            return None if x is None else x.expand(prompts, *x.shape[1:])

        return Text(
            many(self.cond), many(self.uncond), many(self.pooled), many(self.uncond_pooled), many(self.only_values)
        )


@dataclass(frozen=True, eq=False)
class Extra:
    """One more conditional prediction that a control asks for, made in the same forward pass as the run's own.

    `text`: of one prompt, read by all; None: each prompt reads its own. `controlled`: the controls act on this
    prediction as they do on the conditional one; their records do not see it. `edit` acts after them, and finds its
    rows under "cond". `latents` [prompts, images, channels, h, w] of the prompts that are computed: read in place of
    the run's own, scaled as the solver's are. `sites`: the layers whose maps are wanted (`Predictions.maps`).
    `skip`: attention layers whose whole transformer blocks are left out, so that their input passes through.
    """

    text: Text | None = None
    edit: Callable[[Site, Rows], Rows] | None = None
    controlled: bool = True
    latents: Latents | None = None
    sites: Sites | None = None
    skip: Sites | None = None


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the network said at one of a solver's calls, for the prompts that are computed.

    `guided` is what the controls before left of the guided prediction. `extra` and `maps` hold what this control asked
    for, by its names. `call` counts the solver's calls in a step: 0, and 1 in a step of two evaluations.
    """

    cond: Latents
    uncond: Latents | None
    guided: Latents
    extra: Mapping[str, Latents]
    maps: Mapping[str, Maps]
    call: int = 0


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
    `calls`: how often the solver asks the network in all steps together. `pinned`: the source follows a known path,
    such as that of a given picture (a control `of_source` says so).
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
    calls: int = 0
    pinned: bool = False

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
    """One run of a control: the places where it may act. Each hook takes what the control before it returned.

    Steps before `first_step` are not made. Probes (see `before_step`) call `attention` and `feature` too, more than
    once a step perhaps; whatever is counted, summed or kept of attention belongs into `observe`, which they never call.
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

    def observe(self, step: Step, site: Site, rows: Rows) -> None:
        """Record attention at a site, as the controls to the left left it; in the run's own passes, never in probes."""

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        """Change attention at a site."""
        return rows

    def feature(self, step: Step, block: Block, features: Features) -> Features:
        """Change what a residual block adds; called if a control overrides it."""
        return features

    def extras(self, step: Step) -> Mapping[str, Extra]:
        """Further predictions for this step, by name. In `attention`, their rows at the same layer are
        `rows.beside[name]`, as their own edits left them."""
        return {}

    def prediction(self, step: Step, made: Predictions) -> Latents:
        """Change the prediction after guidance [prompts that are computed, images, channels, h, w]; called at each of
        the solver's calls, `made.call`."""
        return made.guided

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        """Change the latents after the scheduler's step."""
        return z

    def report(self) -> dict[str, Any]:
        """What the run did, as JSON-able values."""
        return {}


@dataclass(frozen=True)
class Control:
    """The parameters of a method. `bind` checks them against a run and raises before anything is computed.

    With `needs_first_pass` the source is made alone first, and `run.first_pass` tells of it. A control `of_source`
    says what the source is, and takes part in that first run. One that is `inversion_free` needs a given picture's
    latents alone, not its way from noise.
    """

    needs_first_pass: ClassVar[bool] = False
    of_source: ClassVar[bool] = False
    inversion_free: ClassVar[bool] = False

    def first_pass_sites(self, run: Run) -> Sites:
        """The layers whose maps the first pass keeps for this control."""
        return Sites("joint")

    def bind(self, run: Run) -> Hooks:
        """One run of this control."""
        raise NotImplementedError

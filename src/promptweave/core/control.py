"""Controls hold the parameters of a method; hooks carry out one run of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Step
from promptweave.core.encoded import Text as Text
from promptweave.core.features import Block, Features
from promptweave.core.fields import changed
from promptweave.core.kept import Kept, everything
from promptweave.core.noising import Noising
from promptweave.core.registry import register
from promptweave.core.riders import Riders
from promptweave.core.rows import Rows
from promptweave.core.schedule import Schedule
from promptweave.core.site import Site, Sites

Latents = Float[Tensor, "prompts images channels height width"]
Losses = Callable[[Maps], Float[Tensor, "prompts images"]]
OutputLoss = Callable[[Mapping[Site, Float[Tensor, "prompts images tokens dim"]]], Float[Tensor, ""]]


@runtime_checkable
class Probe(Protocol):
    """A conditional forward pass made only for its attention maps, under the controls earlier in the list."""

    def __call__(self, z: Tensor, sites: Sites) -> Maps:
        """The maps for latents `z` [prompts, images, channels, h, w], differentiable with respect to `z`."""
        ...

    def gradient(
        self, z: Tensor, sites: Sites, losses: Losses, *, by_site: bool = False, by_head: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The losses [prompts, images] of the maps, and each image's gradient, which is to be subtracted from `z`.

        The gradient is taken with respect to latents of unit variance, as the network reads them, whatever scale the
        solver uses. Gradient checkpointing is used if the network has it switched on; losses are scaled in half
        precision.
        """
        ...

    def output_gradient(self, z: Tensor, sites: Sites, loss: OutputLoss) -> tuple[Tensor, Tensor]:
        """As `gradient`, for one loss of what the attention of the layers gives, heads side by side."""
        ...


class NoEffect(ValueError):
    """Raised for a control whose parameters guarantee that it changes nothing."""


@dataclass(frozen=True, eq=False)
class Extra:
    """One more conditional prediction that a control asks for, made in the same forward pass as the run's own.

    `text`: that of one prompt, for all; None: each uses its own. `controlled`: the controls act as on the conditional
    one, but do not record. `edit` acts after them, on rows under "cond"; `state` is to it what `Hooks.state` is to
    `attention`. `latents` [computed prompts, images, channels, h, w]: the input in place of the run's, in the solver's
    scale. `sites`: layers of wanted maps (`Predictions.maps`). `skip`: attention layers whose blocks are skipped.
    """

    text: Text | None = None
    edit: Callable[[Site, Rows], Rows] | None = None
    state: Hashable | None = None
    controlled: bool = True
    latents: Latents | None = None
    sites: Sites | None = None
    skip: Sites | None = None


@dataclass(frozen=True, eq=False)
class Predictions:
    """The network's predictions at one solver call, [computed prompts, images, channels, height, width] each.

    `uncond`: None without classifier-free guidance. `guided`: the prediction after guidance, as earlier controls left
    it. `extra` and `maps`: what this control asked for in `extras`, by name. `call`: number of the solver's call within
    the step, from 0; a second-order solver makes two. `latents`: where they were made, in the solver's scale.
    """

    cond: Latents
    uncond: Latents | None
    guided: Latents
    extra: Mapping[str, Latents]
    maps: Mapping[str, Maps]
    latents: Latents
    call: int = 0


@dataclass(frozen=True, eq=False)
class FirstPass:
    """The source before the edit: its final latents and, if a run generated it, the maps of its words; if it is a given
    image, its pixels, with values in [0, 1]."""

    latents: Float[Tensor, "images channels height width"]
    maps: Maps | None = None
    picture: Float[Tensor, "images rows columns 3"] | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """Everything a control can know before the first step.

    `map_sites`: the layers that localise words best, all of the grid `map_grid` (height, width). `tokens`: columns of
    an attention map. `recorded`: number of prompts whose attention comes from a recording instead of the network.
    `flow`: the network is a flow model, whose time t is 1000 times the fraction of noise in the latent. `guided`:
    guidance uses an unconditional prediction; otherwise its scale is an input of the network. `blocks`: the residual
    blocks of a UNet. `first_pass`: given to controls that need it. `calls`: network calls that the solver makes over
    all steps. `pinned`: the source follows a known path, such as that of a given image (see `Control.for_source`).
    `encode` encodes further texts, and `read` finds their words (`words.Words`). `noising`: how much noise the latents
    hold at each step; raises ValueError for a solver that cannot say. `masked`: for networks that read a mask and the
    image around it: what they read beside the latents, of an image as in `FirstPass` and a mask. `schedule` gives the
    noise levels of a diffusion model; it raises ValueError for others.
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
    schedule: Callable[[], Schedule]
    recorded: int = 0
    seed: int = 0
    flow: bool = False
    guided: bool = True
    blocks: tuple[Block, ...] = ()
    first_pass: FirstPass | None = None
    calls: int = 0
    pinned: bool = False
    noising: Callable[[], Noising] | None = None
    masked: Callable[[Tensor, Tensor], Tensor] | None = None

    def chosen(self, prompts: tuple[int, ...] | None) -> tuple[int, ...]:
        """The rows a control acts on: `prompts`, or all computed rows if None. Raises ValueError for any other row."""
        computed = range(self.recorded, len(self.prompts))
        rows = tuple(computed) if prompts is None else prompts
        if not rows or not set(rows) <= set(computed):
            raise ValueError(
                f"prompts must name rows {self.recorded} to {len(self.prompts) - 1}, which are computed. "
                f"Received {rows}."
            )
        return rows


class Hooks:
    """One run of a control: the points where it can act. Each hook receives what the control before it returned.

    Steps before `first_step` are skipped. Probes (see `before_step`) call `attention` and `feature` too, possibly
    several times per step; count, sum or store attention only in `observe`, which probes never call.
    """

    first_step = 0

    def visits(self, steps: Sequence[Step]) -> Sequence[Step]:
        """The steps in the order in which they are run; resampling goes back and runs some again."""
        return steps

    def channels(self) -> Float[Tensor, "images more height width"] | None:
        """What the network reads beside the latents, for networks that take more channels (`Run.masked`)."""
        return None

    def strength(self, step: Step, guidance: Float[Tensor, "prompts"]) -> Float[Tensor, "prompts"]:
        """Change the guidance of each prompt, which is in main memory: it decides what is computed."""
        return guidance

    def condition(self, step: Step, text: Text) -> Text:
        """Change the encoded prompts of a step."""
        return text

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        """Change the latents [prompts, images, channels, h, w] before a step; `probe` gives maps and gradients."""
        return z

    def observe(self, step: Step, site: Site, rows: Rows) -> None:
        """Record attention at a site, as earlier controls left it. Called in the run's own passes, never in probes."""

    def riders(self, step: Step) -> Riders | None:
        """Tokens that read the image in a joint network and change nothing (`core.riders`); asked as `observe` is."""
        return None

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        """Change attention at a site."""
        return rows

    def state(self, step: Step) -> Hashable | None:
        """What decides about `attention` in this step: with equal states it does the same to the rows of a site,
        whatever their numbers, and may be called once for all such steps. None: call it. Asked before each pass."""
        return None

    def watches(self, step: Step, site: Site) -> bool:
        """Whether `observe` reads anything at a site; the same in all steps of equal states."""
        return True

    def feature(self, step: Step, block: Block, features: Features) -> Features:
        """Change what a residual block adds to its input; called only if it is overridden."""
        return features

    def extras(self, step: Step) -> Mapping[str, Extra]:
        """Further predictions to make in this step, by name. In `attention`, `rows.beside[name]` holds their rows at
        the same layer, after their own edits."""
        return {}

    def prediction(self, step: Step, made: Predictions) -> Latents:
        """Change the prediction after guidance [computed prompts, images, channels, h, w], each call (`made.call`)."""
        return made.guided

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        """Change the latents [prompts, images, channels, h, w] after a step."""
        return z

    def confined(self, row: int) -> Bool[Tensor, "images height width"] | None:
        """Where this control let the image of prompt `row` differ from the source's at the end of the run, on any grid
        that spans the image; None if anywhere. All other controls' changes elsewhere were undone by it."""
        return None

    def report(self) -> dict[str, Any]:
        """What the run did, as JSON-serialisable values."""
        return {}


@dataclass(frozen=True)
class Control:
    """The parameters of a method. `bind` checks them against a run and raises before anything is computed.

    A control also tells what it needs of the source (`needs`, `first_pass_sites`, `for_source`), what a recording of
    the source must hold for it (`reads`), and which of its parameters have an effect in a run (`idle`, `unread`). A
    control that cannot work on a recording (`run.recorded`) raises ValueError in `bind`.

    `needs`: what must be known of the source before the first step. "noise": its starting noise; if no control needs
    it, a given image is not inverted. "latents" and "maps": its final latents and the maps of its words; the source is
    then generated alone first, and `run.first_pass` holds them. `requires`: what a network must have, or `bind` raises:
    "cross" or "joint" attention, and "guided" by an unconditional prediction. `inversion`: the name of the inversion
    that was published with the method, for input images whose inversion was not chosen.
    """

    needs: ClassVar[frozenset[Literal["noise", "latents", "maps"]]] = frozenset({"noise"})
    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset()
    inversion: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        """Register every control class, so that recipes can find it."""
        super().__init_subclass__(**options)
        if "__repr__" not in vars(cls):  # in place of the one that a dataclass would get, which writes out masks
            cls.__repr__ = Control.__repr__
        register(cls)

    def __repr__(self) -> str:
        return changed(self)

    def first_pass_sites(self, run: Run) -> Sites:
        """The layers whose maps the first pass records for this control."""
        return Sites("joint")

    def bind(self, run: Run) -> Hooks:
        """Check the parameters against a run and return its hooks. Raises ValueError; NoEffect if it does nothing."""
        raise NotImplementedError

    def for_source(self) -> Control | None:
        """The part of this control that acts when the source is generated alone: what defines the source, else None."""
        return None

    def reads(self, run: Run) -> Kept:
        """What it reads of the source's attention; everything, unless the method says otherwise."""
        return everything(run)

    def recordable(self, run: Run) -> bool:
        """Whether a recording can take the source's place in this run, if it holds what the control reads."""
        return "noise" in self.needs and len(self.needs) == 1

    def idle(self, run: Run) -> bool:
        """Whether its parameters alone make it change nothing, such as an empty window or a factor of 1."""
        return False

    def times(self, steps: int, levels: int, seed: int) -> Sequence[int] | None:
        """The training times, below `levels`, at which a run of `steps` calls the network of a diffusion model, one a
        step; its latents then move by controls alone. None: the model's own solver decides."""
        return None

    def caption(self, target: int) -> str:
        """What it does to a target, for images whose prompt does not say it; empty: its name says it."""
        return ""

    def unread(self, run: Run) -> Mapping[str, str]:
        """Fields without effect in this run, and where they have one: {"cross": "in networks with cross-attention"}."""
        return {}

"""The interface between networks and the rest of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Text
from promptweave.core.features import Block, Features, joined
from promptweave.core.memory import Layer, Memory
from promptweave.core.pattern import Attend
from promptweave.core.riders import Riders
from promptweave.core.rows import Keys, Layout, Row, Rows, Stack, evaluate
from promptweave.core.schedule import Schedule
from promptweave.core.site import Site, Sites
from promptweave.models.copies import ALL_DIFFERENT, Copies

Edit = Callable[[Site, Rows], Rows]
Call = TypeVar("Call", bound=Callable[..., Any])


def outside_graphs(function: Call) -> Call:
    """Exclude a function from torch.compile: the network around it stays compiled, whatever controls do."""
    return cast(Call, torch.compiler.disable(function))


class ModelError(ValueError):
    """Raised for a model that cannot be found, read or used."""


class Enough(Exception):
    """Raised by an edit that does not need any later layer, to skip the rest of the pass."""


@dataclass(frozen=True, eq=False)
class Tapped:
    """What happens to some rows of a batch: their layout, the edit of attention, `given` rows of a recording, the edit
    of features, the attention layers whose whole transformer blocks they `skip`, and what rides along (`riders`)."""

    layout: Layout
    edit: Edit
    given: Callable[[Site, int], Row] | None = None
    feature: Callable[[Block, Features], Features] | None = None
    skip: Sites | None = None
    riders: tuple[Riders, ...] = ()

    def rows(
        self,
        site: Site,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        project: Callable[[Tensor], Keys] | None,
        memory: Layer | None = None,
    ) -> Rows:
        """The rows at a site after the edit."""
        given = self.given
        known = None if given is None else lambda prompt: given(site, prompt)
        return self.edit(site, Rows(q, k, v, self.layout, known, project, memory=memory))


@dataclass(frozen=True, eq=False)
class Tap:
    """What happens at each attention layer of a forward pass, for each part of the batch.

    `values`: the text of the values, if it is not that of the keys. `after`: called after the pass, while the layers
    are still tapped. `memory`: the cache of the run.
    """

    parts: tuple[Tapped, ...]
    values: Tensor | None = None
    after: Callable[[], None] | None = None
    memory: Memory | None = None

    @classmethod
    def of(cls, layout: Layout, edit: Edit, values: Tensor | None = None) -> Tap:
        """A tap for the batch of a single run."""
        return cls((Tapped(layout, edit),), values)

    @property
    def features(self) -> bool:
        """Whether any part edits the features of residual blocks."""
        return any(part.feature is not None for part in self.parts)

    def skipping(self, site: Site) -> list[slice]:
        """The batch rows that skip the transformer block of an attention layer."""
        found: list[slice] = []
        begin = 0
        for part in self.parts:
            end = begin + part.layout.size
            if part.skip is not None and site in part.skip:
                found.append(slice(begin, end))
            begin = end
        return found

    def riding(self) -> list[tuple[slice, Riders]]:
        """What rides along, with the batch rows whose image it reads: the conditional ones of the computed prompts."""
        found: list[tuple[slice, Riders]] = []
        begin = 0
        for part in self.parts:
            layout = part.layout
            if part.riders:
                first, last = (layout.slice("cond", prompt) for prompt in (layout.first, layout.prompts - 1))
                found += [(slice(begin + first.start, begin + last.stop), riders) for riders in part.riders]
            begin += layout.size
        return found

    def alter(self, block: Block, x: Tensor) -> Tensor | None:
        """The edited features of a block [batch, channels, height, width], or None if no part changed them."""
        sides = x.split([part.layout.size for part in self.parts])
        found = [Features(side, part.layout) for side, part in zip(sides, self.parts, strict=True)]
        return joined([f if p.feature is None else p.feature(block, f) for f, p in zip(found, self.parts, strict=True)])

    def run(self, network: Callable[[], Tensor], z: Tensor) -> Tensor:
        """The network's output, or `z` if the pass was stopped by `Enough`."""
        try:
            output = network()
        except Enough:
            output = z
        if self.after is not None:
            self.after()
        return output

    @outside_graphs
    def attend(
        self,
        site: Site,
        q: Stack,
        k: Keys,
        v: Keys,
        project: Callable[[Tensor], Keys] | None = None,
        memory: Layer | None = None,
        attend: Attend = F.scaled_dot_product_attention,
    ) -> Stack | None:
        """The edited output [batch, heads, queries, dim], or None if no row was changed. `project`: text to keys.
        `memory`: the cache of the layer's keys and values, if they stay the same from step to step."""
        batches: list[Rows] = []
        begin = 0
        for part in self.parts:
            end = begin + part.layout.size
            batches.append(part.rows(site, q[begin:end], k[begin:end], v[begin:end], project, memory))
            begin = end
        return evaluate(batches, attend) if any(rows.touched for rows in batches) else None


@runtime_checkable
class Solver(Protocol):
    """A solver from noise to the image in `steps`, with latents in a scale of its own."""

    steps: Sequence[Step]

    def start(self, noise: Tensor) -> Tensor:
        """The first latent, from noise of unit variance."""
        ...

    def calls(self, step: Step) -> Sequence[int | float]:
        """The times at which a step calls the network; a second-order solver has two."""
        ...

    def scale(self, z: Tensor, t: int | float) -> Tensor:
        """The network's input for a latent."""
        ...

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """The latent after a network call at time `t` with this `output`."""
        ...


@runtime_checkable
class Model(Protocol):
    """A text-to-image latent diffusion model."""

    name: str

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def schedule(self) -> Schedule:
        """The noise schedule of a diffusion model, for DDIM and for inversion."""
        ...

    @property
    def scheduler(self) -> str:
        """The name of the solver: "ddim", "euler", ..."""
        ...

    @property
    def reading(self) -> Any:
        """How prompts are read, with `chunks` and `weights` (`long_text.Reading`)."""
        ...

    @property
    def defaults(self) -> tuple[int, int | float]:
        """Steps and guidance that suit the model."""
        ...

    @property
    def guided(self) -> bool:
        """Whether guidance needs an unconditional prediction; otherwise it is an input of the network."""
        ...

    @property
    def distilled(self) -> bool:
        """Whether the model was trained to do without classifier-free guidance; guidance 0 then means none."""
        ...

    def solver(self, steps: int, shape: tuple[int, ...], prompts: int, seed: int) -> Solver | None:
        """The model's solver; None: DDIM on `schedule`.

        `shape`: that of the starting noise, [images, channels, h, w]. A solver that adds noise adds the same for all
        prompts; for image i it comes from the generator, seeded with seed + i, that drew the starting noise.
        """
        ...

    @property
    def factor(self) -> int:
        """Pixels per latent cell along a side."""
        ...

    @property
    def multiple(self) -> int:
        """Number of pixels that height and width must be multiples of."""
        ...

    @property
    def default_size(self) -> tuple[int, int]:
        """Height and width in pixels that the model was trained for."""
        ...

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        ...

    def words(self, prompt: str) -> Any:
        """The prompt's words and their tokens (`words.Words`)."""
        ...

    def phases(self, prompt: str, steps: int) -> Sequence[str]:
        """The prompt at each of the steps of a run, if its syntax makes it change."""
        ...

    def at_end(self, prompt: str) -> str:
        """The prompt after its last change, whose words `words` gives."""
        ...

    def check_length(self, text: str, name: str, steps: int = 1) -> None:
        """Raise PromptTooLong for a text that the model would cut in a run of `steps`; `name`: what it is."""
        ...

    def encode(self, prompts: Sequence[str], negative: Sequence[str], *, truncate: bool = False) -> Text:
        """Encode prompts and negative prompts. Raises PromptTooLong unless the model may `truncate` them."""
        ...

    def check(self) -> None:
        """Raise ModelError if something is switched on in the network under which edits would not reach every layer."""
        ...

    def kernels(self) -> dict[str, Any]:
        """For reports: the attention backend, if the user chose one, and what it left to PyTorch's own."""
        ...

    def sites(self, latent_grid: tuple[int, int]) -> tuple[Site, ...]:
        """The attention layers in execution order."""
        ...

    def blocks(self) -> tuple[Block, ...]:
        """The residual blocks in execution order; empty if the network has none."""
        ...

    def map_grid(self, latent_grid: tuple[int, int]) -> tuple[int, int]:
        """The grid (height, width) that localises words best."""
        ...

    def map_sites(self, latent_grid: tuple[int, int]) -> Sites:
        """The layers of that grid that localise words best."""
        ...

    def predict(
        self,
        z: Float[Tensor, "batch channels height width"],
        t: int | float | Float[Tensor, "batch"],
        context: Float[Tensor, "batch tokens dim"],
        tap: Tap | None = None,
        *,
        pooled: Float[Tensor, "batch pooled"] | None = None,
        guidance: int | float | Float[Tensor, "batch"] = 1.0,
        copies: Copies = ALL_DIFFERENT,
    ) -> Float[Tensor, "batch channels height width"]:
        """The network's raw output, under the edits of `tap` if given. `guidance`: for networks with it as an input.

        `copies`: which rows of `z` are equal, which can save computation.
        """
        ...

    def to_latent(self, pictures: Float[Tensor, "n height width 3"]) -> Float[Tensor, "n channels h w"]:
        """Encode images with values in [0, 1] (the mean of the posterior)."""
        ...

    def to_image(self, z: Float[Tensor, "n channels h w"]) -> Float[Tensor, "n height width 3"]:
        """Decode to images with values in [0, 1]."""
        ...

    def fingerprint(self) -> str:
        """A short hash of the weights."""
        ...

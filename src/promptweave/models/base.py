"""What the rest of the library asks of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Text
from promptweave.core.features import Block, Features, joined
from promptweave.core.rows import Keys, Layout, Row, Rows, Stack, evaluate
from promptweave.core.schedule import Schedule
from promptweave.core.site import Site, Sites

Edit = Callable[[Site, Rows], Rows]
Call = TypeVar("Call", bound=Callable[..., Any])


def outside_graphs(function: Call) -> Call:
    """A function that torch.compile leaves alone: a compiled network stays so around it, whatever controls do."""
    return cast(Call, torch.compiler.disable(function))


def shown(network: Any, what: str) -> None:
    """Raise if a network is compiled: hooks on its parts would not be called."""
    if getattr(network, "_compiled_call_impl", None) is not None or hasattr(network, "_orig_mod"):
        raise ValueError(
            f"A compiled network does not show what {what} compute, and a control asks for it. Load the model without "
            "torch.compile for this control."
        )


@dataclass(frozen=True)
class Copies:
    """Where a batch says the same twice: runs of (rows, times), each of which is its first rows / times rows, so many
    times one behind the other. Empty: nowhere."""

    runs: tuple[tuple[int, int], ...] = ()

    @property
    def some(self) -> bool:
        """Whether anything is there twice."""
        return any(times > 1 for _, times in self.runs)

    def once(self, x: Tensor) -> Tensor:
        """The different rows."""
        parts = x.split([rows for rows, _ in self.runs])
        kept = [part[: rows // times] for part, (rows, times) in zip(parts, self.runs, strict=True)]
        return kept[0] if len(kept) == 1 else torch.cat(kept)

    def all(self, x: Tensor) -> Tensor:
        """All rows, from the different ones."""
        parts = x.split([rows // times for rows, times in self.runs])
        return torch.cat([part for part, (_, times) in zip(parts, self.runs, strict=True) for _ in range(times)])


ALL_DIFFERENT = Copies()


class Enough(Exception):
    """Raised by an edit that needs nothing of the layers behind: the rest of the pass is left out."""


@dataclass(frozen=True, eq=False)
class Tapped:
    """What is done with some rows of a batch: how they are laid out, the edit, rows that a recording gives, the edit of
    features, and the attention layers whose whole transformer blocks are skipped."""

    layout: Layout
    edit: Edit
    given: Callable[[Site, int], Row] | None = None
    feature: Callable[[Block, Features], Features] | None = None
    skip: Sites | None = None

    def rows(self, site: Site, q: Tensor, k: Tensor, v: Tensor, project: Callable[[Tensor], Keys] | None) -> Rows:
        """The rows at a site after the edit."""
        given = self.given
        known = None if given is None else lambda prompt: given(site, prompt)
        return self.edit(site, Rows(q, k, v, self.layout, known, project))


@dataclass(frozen=True, eq=False)
class Tap:
    """What is done at each attention layer of a forward pass, part by part of the batch.

    `values`: other text for the values than for the keys. `after`: called after the pass, while the layers are still
    tapped.
    """

    parts: tuple[Tapped, ...]
    values: Tensor | None = None
    after: Callable[[], None] | None = None

    @classmethod
    def of(cls, layout: Layout, edit: Edit, values: Tensor | None = None) -> Tap:
        """A tap of a batch that is one run's."""
        return cls((Tapped(layout, edit),), values)

    @property
    def features(self) -> bool:
        """Whether anybody acts on the features of residual blocks."""
        return any(part.feature is not None for part in self.parts)

    def skipping(self, site: Site) -> list[slice]:
        """The rows of the batch that skip the transformer block of an attention layer."""
        found: list[slice] = []
        begin = 0
        for part in self.parts:
            end = begin + part.layout.size
            if part.skip is not None and site in part.skip:
                found.append(slice(begin, end))
            begin = end
        return found

    def alter(self, block: Block, x: Tensor) -> Tensor | None:
        """The changed feature of a block [batch, channels, height, width], or None."""
        sides = x.split([part.layout.size for part in self.parts])
        found = [Features(side, part.layout) for side, part in zip(sides, self.parts, strict=True)]
        return joined([f if p.feature is None else p.feature(block, f) for f, p in zip(found, self.parts, strict=True)])

    def run(self, network: Callable[[], Tensor], z: Tensor) -> Tensor:
        """The network's output, or `z` if a part has seen enough before its end."""
        try:
            output = network()
        except Enough:
            output = z
        if self.after is not None:
            self.after()
        return output

    @outside_graphs
    def attend(
        self, site: Site, q: Stack, k: Keys, v: Keys, project: Callable[[Tensor], Keys] | None = None
    ) -> Stack | None:
        """The edited output [batch, heads, queries, dim], or None if nobody changed a row. `project`: text to keys."""
        batches: list[Rows] = []
        begin = 0
        for part in self.parts:
            end = begin + part.layout.size
            batches.append(part.rows(site, q[begin:end], k[begin:end], v[begin:end], project))
            begin = end
        return evaluate(batches) if any(rows.touched for rows in batches) else None


@runtime_checkable
class Solver(Protocol):
    """A walk from noise to the picture in `steps`; the latents in between are scaled as it likes."""

    steps: Sequence[Step]

    def start(self, noise: Tensor) -> Tensor:
        """The first latent, of noise of unit variance."""
        ...

    def calls(self, step: Step) -> Sequence[int | float]:
        """The times at which the network is asked in a step: two for a second-order solver."""
        ...

    def scale(self, z: Tensor, t: int | float) -> Tensor:
        """The network's input."""
        ...

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """The latent after a call."""
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
        """The solver's name: "ddim", "euler" ..."""
        ...

    @property
    def reading(self) -> Any:
        """How prompts are read: `chunks` and `weights`."""
        ...

    @property
    def defaults(self) -> tuple[int, int | float]:
        """Steps and guidance that suit the model."""
        ...

    @property
    def guided(self) -> bool:
        """Whether guidance needs a second pass, away from the negative prompt; else it is an input of the network."""
        ...

    def solver(self, steps: int, shape: tuple[int, ...], prompts: int, seed: int) -> Solver | None:
        """How this model is sampled; None: by DDIM on `schedule`.

        `shape` [images, channels, h, w] is the noise's. A solver that adds noise gives all prompts the same, image i
        that of a generator seeded with seed + i which has drawn the starting noise.
        """
        ...

    @property
    def factor(self) -> int:
        """Pixels per latent cell along a side."""
        ...

    @property
    def multiple(self) -> int:
        """Pixels of which height and width must be multiples."""
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

    def encode(self, prompts: Sequence[str], negative: Sequence[str]) -> Text:
        """Encode prompts and what guidance leads away from."""
        ...

    def sites(self, latent_grid: tuple[int, int]) -> tuple[Site, ...]:
        """The attention layers in execution order."""
        ...

    def blocks(self) -> tuple[Block, ...]:
        """The residual blocks in execution order; none in a network that has none."""
        ...

    def map_grid(self, latent_grid: tuple[int, int]) -> tuple[int, int]:
        """The grid on which words are best localised."""
        ...

    def map_sites(self, latent_grid: tuple[int, int]) -> Sites:
        """The layers of that grid where they are."""
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
        """The network's raw output; with `tap` under its edits. `guidance` is for networks that take it as input.

        `copies`: where the latents are the same, which may save some work.
        """
        ...

    def to_latent(self, pictures: Float[Tensor, "n height width 3"]) -> Float[Tensor, "n channels h w"]:
        """Encode pictures with values in [0, 1] (the mean of the posterior)."""
        ...

    def to_image(self, z: Float[Tensor, "n channels h w"]) -> Float[Tensor, "n height width 3"]:
        """Decode to pictures with values in [0, 1]."""
        ...

    def fingerprint(self) -> str:
        """A short hash of the weights."""
        ...

"""The extractor of VPD, Unleashing Text-to-Image Diffusion Models for Visual Perception (Zhao et al. 2023, 2303.02153).

One pass of the network on the clean latent of an image, at a fixed small time t, with vectors of text as its context:

    c = T + gamma * MLP(T),      F = { h_l + mean of the cross-attention maps on the grid of h_l }     (section 3.2)

where h_l are the outputs of the decoder's stages and "+" joins channels. The maps are averaged over heads and over the
layers of the encoder and the decoder that have that grid; the middle block and grids finer than half of the latent's
sides are left out, unless those have at most 32 x 32 cells.

Differs from the authors' code: the latent has the scale that the network was trained with (theirs is the encoder's
output, 5.5 times as large in Stable Diffusion 1; `published_scale` gives that); small networks keep their finest maps;
networks with joint attention are read, too: their levels are blocks, and the rest of their text is that of the empty
prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from promptweave.core.rows import Layout, Rows
from promptweave.core.site import Site
from promptweave.core.tapping import Tap, Tapped
from promptweave.models.base import Model
from promptweave.models.levels import levels_of, reading
from promptweave.models.switched import alone

TIME = 1  # t of the published models
SMALL = 32 * 32  # cells of the grids whose maps are always read
GAMMA = 1e-4  # gamma at the beginning: the text is nearly that of the frozen encoder
Made = TypeVar("Made")


class TextAdapter(nn.Module):
    """c = T + gamma * MLP(T), with two linear layers of the text's width and GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.gamma = nn.Parameter(torch.full((dim,), GAMMA))

    def forward(self, text: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        return text + self.gamma * self.mlp(text)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network sees in images: the levels [batch, channels, h, w], from fine to coarse, and for each the mean
    attention map [batch, tokens, h, w] of its grid, or None where no layer has that grid."""

    levels: tuple[Tensor, ...]
    maps: tuple[Tensor | None, ...]

    def joined(self, maps: bool = True) -> list[Tensor]:
        """The levels, each with its maps as further channels if `maps`."""
        return [
            level if map is None or not maps else torch.cat([level, map.to(level)], 1)
            for level, map in zip(self.levels, self.maps, strict=True)
        ]


class Extractor:
    """The features of images in a model, under texts of the width that the model reads."""

    def __init__(self, model: Model, *, t: int | float = TIME, published_scale: bool = False) -> None:
        self.model: Any = model
        self.network: Any = self.model.network
        self.t, self.published_scale = t, published_scale
        self.levels = levels_of(self.network)
        reads, has = self.network.config.in_channels, self.model.vae.config.latent_channels
        if reads not in (has, 4 * has):  # FLUX reads four neighbours as one
            raise ValueError(
                f"Features are read of a latent alone, and this network reads {reads} channels, of which latents "
                f"have {has}: it is made for inpainting or instructions. Load the text-to-image model of its family."
            )
        self.joint = self.levels[0].tokens
        self._empty = self.model.encode([""], [""])

    @property
    def dim(self) -> int:
        """Width of the text."""
        return self._empty.cond.shape[-1]

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the levels, from fine to coarse, without maps."""
        return tuple(level.channels for level in reversed(self.levels))

    def has_maps(self, size: tuple[int, int]) -> tuple[bool, ...]:
        """Which levels have maps in images of this size in pixels, from fine to coarse."""
        grids = {site.grid for site in self._sites(self._latent_grid(size))}
        return tuple(grid in grids for grid in self.grids(size))

    def grids(self, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """The (height, width) of the levels in images of this size in pixels, from fine to coarse."""
        height, width = self._latent_grid(size)
        if self.joint:
            return (self.model.map_grid((height, width)),) * len(self.levels)
        found = [(height, width)]
        while len(found) < len(self.levels):
            found.append(((found[-1][0] + 1) // 2, (found[-1][1] + 1) // 2))
        return tuple(found)

    def latents(self, pictures: Float[Tensor, "n height width 3"]) -> Float[Tensor, "n channels h w"]:
        """The clean latents of images with values in [0, 1]; their sides are multiples of `model.multiple`."""
        unit = self.model.multiple
        if pictures.shape[1] % unit or pictures.shape[2] % unit:
            raise ValueError(
                f"Images that features are read from have sides that are multiples of {unit}. Received "
                f"{pictures.shape[1]} x {pictures.shape[2]}. Resize or pad them."
            )
        z = self.model.to_latent(pictures)
        if not self.published_scale:
            return z
        config = self.model.vae.config
        return z / config.get("scaling_factor", 1.0) + (config.get("shift_factor") or 0.0)

    @property
    def start(self) -> Float[Tensor, "dim"]:
        """The state of the start token, which takes the attention of pixels that no word fits."""
        return self._empty.cond[0, 0].float()

    @torch.no_grad()
    def vectors(
        self, names: Sequence[str], templates: Sequence[str] = ("{}",), of_word: bool = False
    ) -> Float[Tensor, "names dim"]:
        """One vector for each name, averaged over templates: the state at the end of the text, which is CLIP's pooled
        output in Stable Diffusion 1; `of_word`, and in joint networks: the mean state of the name's tokens."""
        found: list[Tensor] = []
        for name in names:
            states: list[Tensor] = []
            for template in templates:
                prompt = template.format(name)
                text, words = self.model.encode([prompt], [""]).cond[0], self.model.words(prompt)
                places = list(words.find(name)) if self.joint or of_word else [words.length - 1]
                states.append(text[places].float().mean(0))
            found.append(torch.stack(states).mean(0))
        return torch.stack(found)

    @torch.no_grad()
    def phrases(self, phrases: Sequence[str], tokens: int) -> Float[Tensor, "phrases tokens dim"]:
        """The states of the first `tokens` tokens of phrases. Raises ValueError for longer ones."""
        for phrase in phrases:
            length = self.model.words(phrase).length
            if length > tokens:
                raise ValueError(
                    f"A phrase has at most {tokens} tokens here, including start and end. Received {phrase!r}, which "
                    f"has {length}. Write it shorter."
                )
        return self.model.encode(list(phrases), [""] * len(phrases)).cond[:, :tokens].float()

    def see(
        self,
        z: Float[Tensor, "n channels h w"],
        context: Float[Tensor, "n tokens dim"],
        then: Callable[[Seen], Made] | None = None,
    ) -> Seen | Made:
        """The features of latents under a context, from one pass of the network.

        `then` is called with them while the network is still tapped, and its result is returned: a backward pass under
        gradient checkpointing belongs there, since it computes layers again.
        """
        size = (z.shape[-2], z.shape[-1])
        wanted = {site.name for site in self._sites(size)}
        maps: dict[str, tuple[tuple[int, int], Tensor]] = {}
        levels: dict[str, Tensor] = {}
        made: list[Any] = []
        tokens = context.shape[1]

        def edit(site: Site, rows: Rows) -> Rows:
            if site.name in wanted:
                maps[site.name] = (site.grid, _map(site, rows, tokens))
            return rows

        def after() -> None:
            seen = self._seen(levels, maps, size)
            made.append(seen if then is None else then(seen))

        tap = Tap((Tapped(Layout(("cond",), 1, len(z)), edit),), after=after)
        pooled = self._empty.pooled
        with alone(self.network), reading(self.network, self.levels, levels):
            self.model.predict(
                z.to(self.model.device), self.t, self._whole(context), tap,
                pooled=None if pooled is None else pooled.expand(len(z), -1),
            )  # fmt: skip
        return made[0]

    def _whole(self, context: Tensor) -> Tensor:
        """The context as the network reads it; joint networks read a text of a fixed length."""
        if self.joint:
            full = self._empty.cond.expand(len(context), -1, -1)
            if context.shape[1] > full.shape[1]:
                raise ValueError(
                    f"A network with joint attention reads at most {full.shape[1]} vectors of text. Received "
                    f"{context.shape[1]}. Name fewer classes, or choose a UNet, which reads any number."
                )
            context = torch.cat([context.to(full), full[:, context.shape[1] :]], 1)
        return context.to(self.model.device, self.model.dtype)

    def _latent_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] // self.model.factor, size[1] // self.model.factor

    def _sites(self, grid: tuple[int, int]) -> list[Site]:
        """The layers whose maps are read."""
        most = max(SMALL, (grid[0] // 2) * (grid[1] // 2))
        kind = "joint" if self.joint else "cross"
        return [s for s in self.model.sites(grid) if s.kind == kind and s.place != "mid" and s.queries <= most]

    def _seen(
        self, levels: dict[str, Tensor], maps: dict[str, tuple[tuple[int, int], Tensor]], size: tuple[int, int]
    ) -> Seen:
        found: list[Tensor] = []
        for level in reversed(self.levels):
            x = levels[level.path]
            if level.tokens:
                x = x.transpose(1, 2).unflatten(2, self.model.map_grid(size))
            found.append(x)
        by_grid: dict[tuple[int, int], list[Tensor]] = {}
        for grid, map in maps.values():
            by_grid.setdefault(grid, []).append(map)
        means = {grid: torch.stack(many).mean(0) for grid, many in by_grid.items()}
        return Seen(tuple(found), tuple(means.get((x.shape[-2], x.shape[-1])) for x in found))


def _map(site: Site, rows: Rows, tokens: int) -> Float[Tensor, "n tokens h w"]:
    """A layer's attention from pixels to the first `tokens` of the text, averaged over heads."""
    dense = rows["cond"][0].pattern.dense.mean(1)  # n, queries, keys
    if site.image is not None and site.text is not None:
        dense = dense[:, site.image, site.text]
    return dense[..., :tokens].transpose(1, 2).unflatten(2, site.grid)

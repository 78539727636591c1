"""Zero-shot Image-to-Image Translation, pix2pix-zero (Parmar et al. 2023, arXiv 2302.03027).

One thing becomes another without a new prompt: an edit direction, the difference of the mean encodings of many
sentences about either thing, is added to the encoded prompt c (section 3.1), and in every step the target's latents are
moved so that its cross-attention maps M stay close to those of the source (section 3.2):

    d = mean of c(sentences with the target) - mean of c(sentences with the source),     c_t = c + strength d,
    L = sum over layers of 1/2 the mean over heads of |M_t - M_s|^2,                     z_t <- z_t - guidance dL/dz_t,

with the factor 1/2 because the published mean runs over the heads of both halves of guidance, so that lambda = 0.1 has
the same strength here. Row 0 of the run is the source; the targets have the source's prompt, and the direction changes
them.

Differs from the authors' code: theirs moves a copy of the latents for each half of guidance and goes on with the one
whose gradient comes from the unconditional maps, so that the gradient of the edited maps affects one pass only; here
there is one latent, moved by the gradient of the conditional maps. A move is at most `limit` times the latent's norm:
where the maps differ much the gradient is steep, and an overlong move makes the next one longer still. Source and
target are sampled side by side, so that no maps need to be kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Number, Step, Window
from promptweave.core.control import Control, Hooks, NoEffect, Probe, Run, Text
from promptweave.core.encoded import Conditioned
from promptweave.core.fields import Command, Option
from promptweave.core.files import write_file
from promptweave.core.precision import precision
from promptweave.core.site import Sites
from promptweave.core.targets import SOURCE, chosen
from promptweave.words.sentences import about

HALVES = 2  # of guidance: the published mean runs over the heads of both
BATCH = 32  # sentences encoded at once


@dataclass(frozen=True, eq=False)
class Direction:
    """An edit direction: what is added to an encoded prompt [tokens, dim], and to its pooled vector [dim] if any."""

    text: Float[Tensor, "tokens dim"]
    pooled: Float[Tensor, "pooled"] | None = None

    @classmethod
    def of(cls, source: str | tuple[str, ...], target: str | tuple[str, ...], run: Run) -> Direction:
        """The direction from one thing to another, each given by name or by sentences about it."""
        (here, here_pooled), (there, there_pooled) = (_mean(sentences(side), run) for side in (source, target))
        pooled = None if here_pooled is None or there_pooled is None else there_pooled - here_pooled
        return cls(there - here, pooled)

    @classmethod
    def load(cls, path: Path | str) -> Direction:
        """Read a file that `save` wrote. Raises FileNotFoundError or ValueError."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no direction at {path}. Save one first (--save-direction).")
        try:
            with np.load(path) as arrays:
                known: dict[str, Any] = {name: arrays[name] for name in ("text", "pooled") if name in arrays}
            pooled = torch.as_tensor(known["pooled"]) if "pooled" in known else None
            return cls(torch.as_tensor(known["text"]), pooled)
        except (ValueError, KeyError, OSError) as error:
            raise ValueError(
                f"A direction file holds `text` [tokens, dim], as written by Direction.save. {path} does not: {error}."
            ) from error

    def save(self, path: Path | str) -> Path:
        """Write an .npz file under exactly this name."""
        parts: dict[str, Any] = {"text": self.text.cpu().numpy()}
        if self.pooled is not None:
            parts["pooled"] = self.pooled.cpu().numpy()

        def write(fresh: Path) -> None:
            with fresh.open("wb") as file:
                np.savez(file, **parts)

        return write_file(Path(path), write)

    def added(self, text: Text, rows: tuple[int, ...], strength: Number) -> Text:
        """The encoded prompts plus `strength` times the direction in these rows. Raises ValueError if shapes differ."""
        if self.text.shape != text.cond.shape[1:]:
            raise ValueError(
                f"A direction fits one kind of text encoder: this one reads {list(text.cond.shape[1:])} tokens and "
                f"channels, and the direction has {list(self.text.shape)}. Make one with this model."
            )
        cond = text.cond.clone()
        cond[list(rows)] += strength * self.text.to(cond)
        text = text.with_cond(cond)
        if text.pooled is None or self.pooled is None:
            return text
        pooled = text.pooled.clone()
        pooled[list(rows), : len(self.pooled)] += strength * self.pooled.to(pooled)
        return text.with_pooled(pooled, text.uncond_pooled)


def sentences(thing: str | tuple[str, ...]) -> tuple[str, ...]:
    """The sentences about a thing given by name; given sentences as they are."""
    return about(thing) if isinstance(thing, str) else tuple(thing)


def _mean(bank: tuple[str, ...], run: Run) -> tuple[Tensor, Tensor | None]:
    """The mean encoding and mean pooled vector of sentences, in single precision at least."""
    precise = precision(run.dtype)
    parts = [run.encode(bank[i : i + BATCH]) for i in range(0, len(bank), BATCH)]
    pooled = [part.pooled.to(precise) for part in parts if part.pooled is not None]
    return torch.cat([part.cond.to(precise) for part in parts]).mean(0), torch.cat(pooled).mean(0) if pooled else None


@dataclass(frozen=True)
class Pix2PixZero(Control):
    """One thing becomes another while the source's attention maps are kept (pix2pix-zero).

    `source` and `target`: names of the things, which fill the templates of `words.sentences`, or sentences about them.
    `strength`: factor on the direction. `attention_guidance`: how strongly the maps are kept (lambda, 0.1 in the
    paper), in the fraction `window` of the steps; 0 does not keep them. `limit`: the longest move, as a fraction of the
    latent's norm; None: no limit. `direction`: a file written by `Direction.save`, instead of sentences. Raises
    ValueError for targets with another prompt than the source, joint networks and recordings; NoEffect for equal things
    or strength 0.
    """

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"cross"})
    command: ClassVar[Command] = Command(
        "translate",
        "Turn one thing into another without a new prompt (pix2pix-zero).",
        prompts="same",
        example='"a photo of a cat on the grass" --source cat --target dog',
    )
    source: Annotated[
        str | tuple[str, ...],
        Option("Thing that changes: cat, red car ...", group="What changes", metavar="THING"),
    ]
    target: Annotated[str | tuple[str, ...], Option("Thing that it becomes.", group="What changes", metavar="THING")]
    strength: Annotated[Number, Option("Factor on the edit direction.")] = 1.0
    attention_guidance: Annotated[
        Number, Option("How strongly the source's cross-attention maps are kept; 0: not at all.", low=0)
    ] = 0.1
    window: Annotated[Number, Option("Fraction of the steps in which they are kept.", low=0, high=1)] = 1.0
    limit: Annotated[
        Number | None, Option("Longest move of a latent in a step, as a fraction of its norm.", low=0, group="Advanced")
    ] = 0.05
    direction: Annotated[
        str | None,
        Option(
            "File with a saved direction, instead of sentences about the two things.", group="Advanced", metavar="FILE"
        ),
    ] = None
    targets: tuple[int, ...] | None = None

    def caption(self, target: int) -> str:
        return " -> ".join(side if isinstance(side, str) else side[0] for side in (self.source, self.target))

    def bind(self, run: Run) -> Hooks:
        rows, window = chosen(self.targets, run), Window.of(self.window, "window of Pix2PixZero")
        banks = sentences(self.source), sentences(self.target)
        if not all(banks) or banks[0] == banks[1] or not self.strength:
            raise NoEffect(
                "Pix2PixZero needs sentences about two different things and a strength other than 0. "
                f"Received {self.source!r} to {self.target!r} and strength={self.strength}."
            )
        if self.attention_guidance < 0 or (self.limit is not None and self.limit <= 0):
            raise ValueError(
                "Pix2PixZero takes an attention_guidance of at least 0, and a limit above 0 or None. "
                f"Received attention_guidance={self.attention_guidance} and limit={self.limit}."
            )
        if any(run.prompts[row] != run.prompts[SOURCE] for row in rows):
            raise ValueError(
                "The targets of Pix2PixZero must have the source's own prompt; the direction changes them. "
                f"Received {[run.prompts[row] for row in rows]} for {run.prompts[SOURCE]!r}."
            )
        if run.recorded:
            raise ValueError("Pix2PixZero reads the source's maps in every step. Run it without a recording.")
        if not any(site.kind == "cross" for site in run.sites):
            raise ValueError(
                "Pix2PixZero keeps cross-attention maps, and this network has none: its attention is joint. "
                "Use FlowEdit or Consist with it."
            )
        saved = None if self.direction is None else Direction.load(self.direction)
        way = saved or Direction.of(self.source, self.target, run)
        return _Translating(self, rows, window, way)


def limited(move: Tensor, z: Tensor, limit: Number | None) -> Tensor:
    """Each image's move, shortened to at most `limit` times the norm of its latent [..., channels, height, width]."""
    if limit is None:
        return move
    sides = (-3, -2, -1)
    longest = limit * z.square().sum(sides, keepdim=True).sqrt()
    length = move.square().sum(sides, keepdim=True).sqrt().clamp_min(1e-12)
    return move * (longest / length).clamp_max(1)


@dataclass
class _Translating(Hooks):
    control: Pix2PixZero
    rows: tuple[int, ...]
    window: Window
    direction: Direction
    losses: dict[int, list[Tensor]] = field(default_factory=dict[int, list[Tensor]])  # of the first image, by step
    texts: Conditioned = field(default_factory=Conditioned)

    def condition(self, step: Step, text: Text) -> Text:
        return self.texts(text, lambda: self.direction.added(text, self.rows, self.control.strength))

    def before_step(self, step: Step, z: Tensor, probe: Probe) -> Tensor:
        if not self.control.attention_guidance or step not in self.window:
            return z
        value, gradient = probe.gradient(z, Sites("cross"), self._distance, by_site=True, by_head=True)
        for row in self.rows:
            self.losses.setdefault(row, []).append(value[row, 0])
        return z - limited(self.control.attention_guidance * gradient, z, self.control.limit)

    def _distance(self, maps: Maps) -> Float[Tensor, "prompts images"]:
        """L of each target and image; 0 for the source, whose maps are the reference."""
        totals: dict[int, Tensor] = {}
        for row in self.rows:
            for _, where, _ in maps.keys(row):
                off = maps.total(row, where) - maps.total(SOURCE, where).detach()
                distance = (off**2).sum((-3, -2, -1)).mean(1) / HALVES  # over pixels and tokens, then heads: [images]
                totals[row] = totals[row] + distance if row in totals else distance
        none = torch.zeros_like(next(iter(totals.values())))
        return torch.stack([totals.get(row, none) for row in range(max(self.rows) + 1)])

    def report(self) -> dict[str, Any]:
        """`losses`: L of each target's first image at each step."""
        return {"losses": {str(row): [round(float(x), 6) for x in found] for row, found in self.losses.items()}}

"""Local editing of Prompt-to-Prompt (Hertz et al. 2022, arXiv 2208.01626, section 3.2 and algorithm 1, lines 11-14).

    mask = B(source maps of the words) or B(target maps of the words);   z_t <- z_t in the mask, z_s outside

B: mean over heads and layers of the words' cross-attention, summed over the steps so far, 3x3 max-pooled, enlarged to
the latent, divided by its maximum, above a threshold. Words under `subtract` take their region out of the mask.

Maps of joint-attention networks (SD3, FLUX) are the image's attention to the words and are noisier: they are smoothed
by a Gaussian of deviation 1 first (Shin et al. 2025, arXiv 2508.07519), whose blend, unlike ours, ends halfway.

Differs from the authors' code: maps of any latent size and shape; the target's own maps are read (`maps="own"`), as in
the paper, not those with the source's injected; a word that a prompt lacks has an empty region instead of NaN; what is
subtracted is the target's region, not also the source's. `reference_compat=True` restores the last two and the maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Step, Window
from promptweave.core.control import Control, Hooks, NoEffect, Run
from promptweave.core.kept import NOTHING, Kept
from promptweave.core.options import Option
from promptweave.core.rows import Rows
from promptweave.core.site import Site
from promptweave.core.targets import SOURCE, chosen
from promptweave.words import counterparts

Heat = Float[Tensor, "images height width"]
Mask = Bool[Tensor, "images rows columns"]


def smooth(maps: Heat) -> Heat:
    """A Gaussian of deviation 1 on 7 x 7 cells with zeros around."""
    line = torch.exp(-0.5 * torch.arange(-3, 4, device=maps.device, dtype=maps.dtype) ** 2)
    line = line / line.sum()
    across = F.conv2d(maps[:, None], line.view(1, 1, 7, 1), padding=(3, 0))
    return F.conv2d(across, line.view(1, 1, 1, 7), padding=(0, 3))[:, 0]


def region(maps: Heat, size: tuple[int, int], threshold: int | float, *, pool: bool = True, soft: bool = False) -> Mask:
    """B of the module's docstring; `size` is that of the latent. An all-zero map has an empty region."""
    maps = smooth(maps) if soft else maps
    maps = F.max_pool2d(maps[:, None], 3, 1, 1) if pool else maps[:, None]
    maps = F.interpolate(maps, size=size)[:, 0]
    highest = maps.amax((-2, -1), keepdim=True)
    return maps > threshold * highest


def blend(source: Tensor, edited: Tensor, mask: Bool[Tensor, "..."]) -> Tensor:
    """Keep the source outside the mask."""
    return torch.where(mask, edited, source)


@dataclass(frozen=True)
class LocalBlend(Control):
    """Change the picture only where the named words look.

    `words` and `subtract` may name words of the source, of a target or of both; a word that was swapped brings its
    counterpart with it. `start`: share of the steps before the first blend. `mask`: an own mask [height, width] of
    zeros and ones as nested tuples, joined with the words' region by `combine`; without words it stands alone.
    """

    words: Annotated[
        tuple[str, ...] | str,
        Option(
            "Word in whose region alone the image may change.",
            group="Where",
            flag="--blend",
            metavar="WORD",
        ),
    ] = ()
    subtract: Annotated[
        tuple[str, ...] | str,
        Option("Word whose region must not change.", group="Where", metavar="WORD"),
    ] = ()
    threshold: Annotated[
        int | float,
        Option("Fraction of a map's maximum above which a pixel belongs to the region.", low=0, high=1, group="Where"),
    ] = 0.3
    subtract_threshold: Annotated[
        int | float, Option("The same for the region that is subtracted.", low=0, high=1, group="Advanced")
    ] = 0.3
    start: Annotated[
        int | float,
        Option("Fraction of the steps before the first blend.", low=0, high=1, group="Where", flag="--blend-start"),
    ] = 0.2
    maps: Annotated[
        Literal["own", "effective"],
        Option("Maps that are read: a prompt's own, or those after the injection.", group="Advanced"),
    ] = "own"
    mask: Annotated[
        tuple[tuple[float, ...], ...] | None,
        Option(
            "Drawn region in which the image may change: white, or 1.", low=0, high=1, group="Where", metavar="FILE"
        ),
    ] = None
    combine: Annotated[
        Literal["intersection", "union"],
        Option("How the mask and the region of the words are combined.", group="Where"),
    ] = "intersection"
    targets: tuple[int, ...] | None = None
    reference_compat: Annotated[bool, Option("Maps and regions of the authors' code.", group="Advanced")] = False

    def bind(self, run: Run) -> Hooks:
        for name in ("threshold", "subtract_threshold"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} of LocalBlend must be in [0, 1). Received {getattr(self, name)}.")
        window = Window(Window.of(self.start).end, 1.0)
        if not window.steps(run.steps):
            raise NoEffect(
                f"LocalBlend must start before the last of the {run.steps} steps. Received start={self.start}."
            )
        rows = chosen(self.targets, run)
        weights = torch.zeros(len(run.prompts), run.tokens, 2)
        for channel, words in enumerate((self.words, self.subtract)):
            self._mark(weights[..., channel], run, rows, (words,) if isinstance(words, str) else tuple(words))
        if not weights[..., 0].any() and self.mask is None:
            raise NoEffect("LocalBlend needs a word whose region may change, or a mask. Received neither.")
        own = self.maps == "own" and not self.reference_compat
        prompts = (SOURCE, *rows)
        maps = Maps(run.map_sites, prompts, {p: weights[p].to(run.device) for p in prompts}, own=own)
        soft = any(site.kind == "joint" for site in run.sites)
        return _Blending(self, rows, window, maps, bool(weights[..., 1].any()), soft)

    def reads(self, run: Run) -> Kept:
        return replace(NOTHING, maps=True)

    def idle(self, run: Run) -> bool:
        return not Window(Window.of(self.start).end, 1.0).steps(run.steps)

    def unread(self, run: Run) -> Mapping[str, str]:
        found: dict[str, str] = {}
        if not self.words:
            found |= {"threshold": "for a region of words: name them in blend"}
            found |= {} if self.subtract else {"reference_compat": "for a region of words: name them in blend"}
        if not self.subtract:
            found |= {"subtract_threshold": "for a region of words to take out: name them in subtract"}
        if not self.words or self.mask is None:
            found |= {"combine": "for a mask together with a region of words: give mask and blend"}
        return found

    def _mark(
        self, weights: Float[Tensor, "prompts tokens"], run: Run, rows: tuple[int, ...], words: tuple[str, ...]
    ) -> None:
        """Set the tokens of the words to 1 in every prompt that has them, or has their counterpart."""
        for word in words:
            found = {row: counterparts(word, run.words[SOURCE], run.words[row]) for row in rows}
            if not any(found.values()):
                run.words[rows[0]].find(word)  # raises, and lists the words
            for row, sides in found.items():
                weights[SOURCE, list(sides.get("source", ()))] = 1
                weights[row, list(sides.get("target", ()))] = 1


@dataclass
class _Blending(Hooks):
    control: LocalBlend
    rows: tuple[int, ...]
    window: Window
    maps: Maps
    subtracts: bool
    soft: bool = False
    areas: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    masks: dict[int, dict[int, Mask]] = field(default_factory=dict[int, dict[int, Tensor]])  # of a row, by step

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        self.maps.add(step, site, rows)
        return rows

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        if step not in self.window:
            return z
        z = z.clone()
        for row in self.rows:
            mask = self.mask(row, (z.shape[-2], z.shape[-1]))
            self.areas.setdefault(row, []).append(float(mask.float().mean()))
            self.masks.setdefault(row, {})[step.index] = mask.cpu()
            z[row] = blend(z[SOURCE], z[row], mask[:, None])
        return z

    def mask(self, row: int, size: tuple[int, int]) -> Mask:
        """Where the target may differ from the source, after the steps so far."""
        control = self.control
        mask = self._either(0, row, size, control.threshold, pool=True)
        mask = mask if control.words else torch.ones_like(mask)
        if self.subtracts and control.reference_compat:
            mask = mask & ~self._either(1, row, size, control.subtract_threshold, pool=False)
        elif self.subtracts:
            owner = row if self._channel(1, row).any() else SOURCE
            mask = mask & ~region(self._channel(1, owner), size, control.subtract_threshold, pool=False, soft=self.soft)
        if control.mask is None:
            return mask
        drawn = torch.tensor(control.mask, device=mask.device)[None, None].float()
        drawn = F.adaptive_avg_pool2d(drawn, size)[0] > 0.5
        return mask | drawn if control.combine == "union" and control.words else mask & drawn

    def _channel(self, channel: int, prompt: int) -> Heat:
        return self.maps.total(prompt)[..., channel]

    def _either(self, channel: int, row: int, size: tuple[int, int], threshold: int | float, *, pool: bool) -> Mask:
        source, target = (
            region(self._channel(channel, p), size, threshold, pool=pool, soft=self.soft) for p in (SOURCE, row)
        )
        return source | target

    def report(self) -> dict[str, Any]:
        return {"latent_steps": max(map(len, self.areas.values()), default=0), "mask_area": self.areas}

"""Local editing of Prompt-to-Prompt (Hertz et al. 2022, arXiv 2208.01626, section 3.2 and algorithm 1, lines 11-14).

    mask = B(source maps of the words) or B(target maps of the words);   z_t <- z_t in the mask, z_s outside

B takes the words' cross-attention, averaged over heads and layers and summed over the steps so far, max-pools it by
3x3, enlarges it to the latent and thresholds it at a fraction of its maximum. The region of `subtract` leaves the mask.

Maps of joint-attention networks (SD3, FLUX) are the image's attention to the words and noisier: a Gaussian of standard
deviation 1 smooths them first (Shin et al. 2025, arXiv 2508.07519; their blend, unlike ours, ends halfway).

Differs from the authors' code: latents may have any size and shape; the target's own maps are read (`maps="own"`), as
in the paper (theirs: the maps after injection); a word that a prompt lacks has an empty region instead of NaN; only the
target's region is subtracted (theirs: also the source's); a source word counts for the targets that keep or swap it
(theirs: for all); a map that a weight made negative has an empty region (theirs: the whole image); `start` is a
fraction of steps (theirs: of network calls). `reference_compat=True` restores all but the sizes and missing words.
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
from promptweave.core.clock import Step, Window, fraction
from promptweave.core.control import Control, Hooks, NoEffect, Run
from promptweave.core.fields import Option
from promptweave.core.gaussian import gaussian
from promptweave.core.kept import NOTHING, Kept
from promptweave.core.mask import check_covers, finer, on_grid
from promptweave.core.rows import Rows
from promptweave.core.site import Site
from promptweave.core.targets import SOURCE, chosen
from promptweave.methods.published_windows import calls, truncated
from promptweave.words.counterparts import Sides, marked, none_of

Heat = Float[Tensor, "images height width"]
Mask = Bool[Tensor, "images rows columns"]


def smooth(maps: Heat) -> Heat:
    """Smooth by a Gaussian of standard deviation 1 on 7 x 7 cells, with zero padding."""
    line = gaussian(1, 3, device=maps.device, dtype=maps.dtype)
    across = F.conv2d(maps[:, None], line.view(1, 1, 7, 1), padding=(3, 0))
    return F.conv2d(across, line.view(1, 1, 1, 7), padding=(0, 3))[:, 0]


def region(
    maps: Heat,
    size: tuple[int, int],
    threshold: int | float,
    *,
    pool: bool = True,
    soft: bool = False,
    reference_compat: bool = False,
) -> Mask:
    """B of the module's docstring; `size` is that of the latent. A map that is nowhere positive has an empty region.

    `soft`: smooth the maps first. `reference_compat` divides by the maximum, so that a map that is negative everywhere,
    that of a word with a negative weight, exceeds the threshold everywhere.
    """
    maps = smooth(maps) if soft else maps
    maps = F.max_pool2d(maps[:, None], 3, 1, 1) if pool else maps[:, None]
    maps = F.interpolate(maps, size=size)[:, 0]
    highest = maps.amax((-2, -1), keepdim=True)
    return maps / highest > threshold if reference_compat else maps > threshold * highest


def blend(source: Tensor, edited: Tensor, mask: Bool[Tensor, "..."]) -> Tensor:
    """The edited latents in the mask, the source's outside."""
    return torch.where(mask, edited, source)


@dataclass(frozen=True)
class LocalBlend(Control):
    """Change the image only in the regions of the named words.

    `words` and `subtract` may name words of the source, of a target or of both; a swapped word also stands for its
    counterpart. `threshold` and `subtract_threshold`: fractions of a map's maximum. `start`: fraction of the steps
    before the first blend. `mask`: a drawn mask [height, width] of zeros and ones, as nested tuples, combined with the
    words' region by `combine`; without words it is used alone. Raises ValueError for parameters out of range, NoEffect
    if there is neither a word nor a mask, or no step to blend after.
    """

    words: Annotated[
        tuple[str, ...] | str,
        Option(
            "Word to whose region the change is limited.",
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
        int | float, Option("The same for the region of the subtracted words.", low=0, high=1, group="Advanced")
    ] = 0.3
    start: Annotated[
        int | float,
        Option("Fraction of the steps before the first blend.", low=0, high=1, group="Where", flag="--blend-start"),
    ] = 0.2
    maps: Annotated[
        Literal["own", "effective"],
        Option("Maps to read: a prompt's own, or those after injection.", group="Advanced"),
    ] = "own"
    mask: Annotated[
        tuple[tuple[float, ...], ...] | None,
        Option(
            "Drawn region in which the image may change (white, or 1).",
            low=0, high=1, group="Where", metavar="FILE", mask=True,
        ),
    ] = None  # fmt: skip
    combine: Annotated[
        Literal["intersection", "union"],
        Option("How the mask is combined with the region of the words.", group="Where"),
    ] = "intersection"
    targets: tuple[int, ...] | None = None
    reference_compat: Annotated[
        bool, Option("Compute maps and regions as the authors' code does.", group="Advanced")
    ] = False

    def bind(self, run: Run) -> Hooks:
        for name in ("threshold", "subtract_threshold"):
            fraction(getattr(self, name), f"{name} of LocalBlend", below=True)
        times = self._times(run)
        if not times:
            raise NoEffect(
                f"LocalBlend must start before the last of the {run.steps} steps. Received start={self.start}."
            )
        rows = chosen(self.targets, run)
        marks = self._marks(run, rows)
        if self.mask is None and not any(marks[row, 0]["target"] or marks[row, 0]["source"] for row in rows):
            raise NoEffect("LocalBlend needs a word whose region may change, or a mask. Received neither.")
        if self.mask is not None:
            check_covers(self.mask, run.latent_grid, "LocalBlend")
        weights = {SOURCE: torch.zeros(run.tokens, len(rows), 2), **{row: torch.zeros(run.tokens, 2) for row in rows}}
        for (row, channel), sides in marks.items():
            weights[SOURCE][list(sides["source"]), rows.index(row), channel] = 1
            weights[row][list(sides["target"]), channel] = 1
        own = self.maps == "own" and not self.reference_compat
        flat = {prompt: found.flatten(1).to(run.device) for prompt, found in weights.items()}
        maps = Maps(run.map_sites, (SOURCE, *rows), flat, own=own)
        soft = any(site.kind == "joint" for site in run.sites)
        subtracts = any(sides["source"] or sides["target"] for (_, channel), sides in marks.items() if channel)
        return _Blending(self, rows, times, maps, subtracts, soft)

    def reads(self, run: Run) -> Kept:
        return replace(NOTHING, maps=True)

    def idle(self, run: Run) -> bool:
        return not self._times(run)

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

    def _times(self, run: Run) -> range:
        """The steps after which latents are blended; with `reference_compat`, the network calls."""
        window = Window.since(self.start, "start of LocalBlend")
        if not self.reference_compat:
            return window.steps(run.steps)
        times = range(truncated(window, run.steps).start, calls(run))
        if times and times[0] == 0 and run.calls > run.steps:
            raise ValueError(
                "LocalBlend with reference_compat cannot blend between the two calls of a step, as the authors' code "
                f"does from the first call on. Received start={self.start} and {run.calls} calls in {run.steps} steps. "
                f"Choose a start of at least {1 / run.steps:.2g}, or the ddim scheduler."
            )
        return times

    def _marks(self, run: Run, rows: tuple[int, ...]) -> dict[tuple[int, int], Sides]:
        """For each target, the tokens of the words (channel 0) and of those under `subtract` (channel 1)."""
        marks: dict[tuple[int, int], Sides] = {}
        for channel, given in enumerate((self.words, self.subtract)):
            words = (given,) if isinstance(given, str) else tuple(given)
            for row, sides in marked(words, run, rows, shared=self.reference_compat).items():
                marks[row, channel] = sides
        bare = [row for row in rows if not (marks[row, 0]["source"] or marks[row, 0]["target"])]
        if self.words and bare and (self.mask is None or self.combine == "intersection"):
            raise NoEffect(
                f"LocalBlend would turn target {bare[0]} into the source. {none_of(self.words, run, bare[0])}"
            )
        return marks


@dataclass
class _Blending(Hooks):
    control: LocalBlend
    rows: tuple[int, ...]
    times: range
    maps: Maps
    subtracts: bool
    soft: bool = False
    # Of each row, step by step; they stay on the device, for which the loop does not wait.
    areas: dict[int, list[Tensor]] = field(default_factory=dict[int, list[Tensor]])
    masks: dict[int, dict[int, Mask]] = field(default_factory=dict[int, dict[int, Tensor]])
    drawn: dict[tuple[int, int], Mask] = field(default_factory=dict[tuple[int, int], Tensor])  # the mask, by size

    def watches(self, step: Step, site: Site) -> bool:
        return self.maps.wants(step, site)

    def observe(self, step: Step, site: Site, rows: Rows) -> None:
        self.maps.add(step, site, rows)

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        if (step.call if self.control.reference_compat else step.index) not in self.times:
            return z
        z = z.clone()
        for row in self.rows:
            mask = self.mask(row, (z.shape[-2], z.shape[-1]))
            self.areas.setdefault(row, []).append(mask.float().mean())
            self.masks.setdefault(row, {})[step.index] = mask
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
            heat = self._channel(1, row, row)
            heat = torch.where(heat.any(), heat, self._channel(1, SOURCE, row))  # the source's where it has no word
            mask = mask & ~region(heat, size, control.subtract_threshold, pool=False, soft=self.soft)
        if control.mask is None:
            return mask
        if size not in self.drawn:
            self.drawn[size] = on_grid(control.mask, size, mask.device)[None]
        drawn = self.drawn[size]
        return mask | drawn if control.combine == "union" and control.words else mask & drawn

    def _channel(self, channel: int, prompt: int, row: int) -> Heat:
        """The map, in the source or in a target, of the words that count for target `row`."""
        return self.maps.total(prompt)[..., channel + (2 * self.rows.index(row) if prompt == SOURCE else 0)]

    def _either(self, channel: int, row: int, size: tuple[int, int], threshold: int | float, *, pool: bool) -> Mask:
        source, target = (
            region(
                self._channel(channel, p, row),
                size,
                threshold,
                pool=pool,
                soft=self.soft,
                reference_compat=self.control.reference_compat,
            )
            for p in (SOURCE, row)
        )
        return source | target

    def confined(self, row: int) -> Mask | None:
        steps, control = self.masks.get(row), self.control
        if not steps:
            return None
        found = steps[max(steps)]
        if control.mask is None or (control.words and control.combine == "union"):
            return found
        return finer(found, control.mask)

    def report(self) -> dict[str, Any]:
        areas = {row: [float(area) for area in found] for row, found in self.areas.items()}
        return {"latent_steps": max(map(len, self.areas.values()), default=0), "mask_area": areas}

"""Smoothed Energy Guidance, SEG (Hong 2024, arXiv 2408.00760).

Like Perturbed-Attention Guidance, with blurred self-attention in the weaker prediction e_s. With G a Gaussian blur over
the pixels, G (q k^T) = (G q) k^T, so that it suffices to blur the queries (section 3.3):

    e <- e_guided + scale (e_c - e_s).

`sigma` is in pixels of a layer's own grid; if infinite, the default, every query becomes the mean of all. Queries are
blurred as the softmax takes them, after norms and rotary embeddings, where the equation holds. In joint layers only the
queries of the image are blurred.

Differs from the authors' code: grids need not be square. As there, the image is mirrored at its edges, and the blur
reaches three sigma, but at most half the grid. diffusers' guider swaps the two cases (a finite sigma takes the mean),
blurs before norms and rotary embeddings, starts one step late, and in 0.42 does not count its passes, so never acts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Number, Span
from promptweave.core.control import Control, Hooks, NoEffect, Run
from promptweave.core.fields import Command, Option
from promptweave.core.gaussian import gaussian
from promptweave.core.pattern import Pattern, Softmax
from promptweave.core.rows import Row
from promptweave.core.site import Site
from promptweave.methods.perturbed_attention import AwayFrom, on_softmax

Queries = Float[Tensor, "images heads queries dim"]


@dataclass(frozen=True)
class SmoothedEnergyGuidance(Control):
    """Guide away from a prediction with blurred attention; parameters are those of `PerturbedAttentionGuidance`.

    `sigma`: width of the blur in pixels of the layer. Raises ValueError for unknown layers or a sigma of 0 or less,
    NoEffect for a blur that does not reach the next pixel or a scale of 0.
    """

    command: ClassVar[Command] = Command(
        "seg", "Guide an image away from one with blurred attention (SEG).", example='"a cat on the grass" --sigma 2'
    )
    scale: Annotated[Number, Option("Scale of the guidance away from the blurred prediction.", low=0)] = 3.0
    sigma: Annotated[
        Number, Option("Width of the blur, in pixels of the layer; inf: every query is the mean of all.", low=0)
    ] = float("inf")
    layers: Annotated[
        tuple[str, ...] | str,
        Option("Layer to blur: its name, or the beginning of it.", group="Where", flag="--layer"),
    ] = "mid"
    window: Annotated[Span, Option("Fraction of the steps in which it acts.", low=0, high=1)] = 1.0
    prompts: tuple[int, ...] | None = None

    def bind(self, run: Run) -> Hooks:
        if not self.sigma > 0:
            raise ValueError(f"sigma must be above 0, or inf for the mean of all queries. Received {self.sigma}.")
        if reach(self.sigma, max(max(site.grid) for site in run.sites)) == 0:
            raise NoEffect(f"A blur needs a sigma above 1/6 to reach the next pixel. Received {self.sigma}.")
        weak = partial(smoothed, sigma=self.sigma)
        return AwayFrom(run, weak, self)


def smoothed(site: Site, row: Row, *, sigma: Number) -> Pattern:
    """The attention pattern with the image's queries blurred; text queries are unchanged."""

    def blur(kernel: Softmax) -> Softmax:
        image = blurred(site.of_image(kernel.q), site.grid, sigma)
        return replace(kernel, q=site.with_image(kernel.q, image))

    return on_softmax(row.pattern, blur)


def blurred(q: Queries, grid: tuple[int, int], sigma: Number) -> Queries:
    """Queries blurred over their grid; for an infinite sigma, the mean of all."""
    if math.isinf(sigma):
        return q.mean(-2, keepdim=True).expand_as(q)
    height, width = grid
    x = q.reshape(*q.shape[:-2], height, width, q.shape[-1])
    for axis in (-3, -2):
        lines = x.movedim(axis, -1)
        x = _along(lines.reshape(-1, 1, lines.shape[-1]), sigma).reshape(lines.shape).movedim(-1, axis)
    return x.reshape(q.shape)


def reach(sigma: Number, side: int) -> int:
    """How many pixels a blur reaches to each side: 3 sigma, but at most half of the grid's side."""
    return side // 2 if math.isinf(sigma) else min(math.ceil(6 * sigma) // 2, side // 2)


def _along(x: Float[Tensor, "lines 1 side"], sigma: Number) -> Float[Tensor, "lines 1 side"]:
    far = reach(sigma, x.shape[-1])
    kernel = gaussian(sigma, far, device=x.device).to(x.dtype)
    return F.conv1d(F.pad(x, (far, far), mode="reflect"), kernel[None, None])

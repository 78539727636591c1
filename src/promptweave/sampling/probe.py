"""Probes: attention maps before a step, and their gradients by the latents (Attend-and-Excite, pix2pix-zero)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Step
from promptweave.core.control import Hooks, Losses, OutputLoss
from promptweave.core.rows import Layout, Rows
from promptweave.core.site import Site, Sites
from promptweave.core.tapping import Enough
from promptweave.models.base import Solver
from promptweave.sampling.passes import Pass, answer

HALF = 2.0**14  # loss scale: in half precision the gradients of a loss near 1 would vanish


class Look(Hooks):
    """Add each layer's attention to maps, and stop the pass at the layer `last`."""

    def __init__(self, maps: Maps, last: str) -> None:
        self.maps, self.last = maps, last

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        self.maps.add(step, site, rows)
        if site.name == self.last:
            raise Enough
        return rows


class Given(Hooks):
    """Keep what the attention of each layer gives, and stop the pass at the layer `last`."""

    def __init__(self, sites: Sites, last: str) -> None:
        self.sites, self.last = sites, last
        self.found: dict[Site, Tensor] = {}

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        if site in self.sites:
            prompts = range(rows.layout.first, rows.layout.prompts)
            made = [rows["cond"][prompt] for prompt in prompts]
            outputs = torch.stack([row.pattern.apply(row.v) for row in made])  # [prompts, images, heads, tokens, dim]
            self.found[site] = outputs.transpose(-2, -3).flatten(-2)
        if site.name == self.last:
            raise Enough
        return rows


@dataclass(frozen=True, eq=False)
class Prober:
    """A probe (`control.Probe`) in the state `here` of a run, whose latents are in the scale of `solver`."""

    here: Pass
    solver: Solver

    def __call__(self, z: Tensor, sites: Sites) -> Maps:
        maps = self._maps(z, sites)
        with torch.enable_grad():
            self._pass(z, Look(maps, self._last(z, sites)))
        return maps

    def gradient(
        self, z: Tensor, sites: Sites, losses: Losses, *, by_site: bool = False, by_head: bool = False
    ) -> tuple[Tensor, Tensor]:
        z, maps = z.detach().requires_grad_(), self._maps(z, sites, by_site, by_head)
        look, found = Look(maps, self._last(z, sites)), list[Tensor]()

        def backward() -> None:
            """Called inside the tapped pass, since the backward pass computes checkpointed layers again."""
            value = losses(maps)
            look.maps = self._maps(z, sites, by_site, by_head)  # so recomputed layers are not counted twice
            found.append(value.detach())
            slope = _gradient(value.sum(), z, HALF if self.here.model.dtype == torch.float16 else 1.0)
            found.append(slope * self._spread(z) ** 2)

        with torch.enable_grad():
            self._pass(z, look, backward)
        return found[0], found[1]

    def output_gradient(self, z: Tensor, sites: Sites, loss: OutputLoss) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        look, found = Given(sites, self._last(z, sites)), list[Tensor]()

        def backward() -> None:
            value = loss(look.found)
            look.found = {}  # checkpointed layers are computed again
            slope = _gradient(value, z, HALF if self.here.model.dtype == torch.float16 else 1.0)
            found.extend((value.detach(), slope * self._spread(z) ** 2))

        with torch.enable_grad():
            self._pass(z, look, backward)
        return found[0], found[1]

    def _spread(self, z: Tensor) -> Tensor | float:
        """How much larger the solver's latents are than the network's input. Scaled by it, a move along a gradient
        changes the image equally with every solver."""
        read = self.solver.scale(z, self.solver.calls(self.here.step)[0])
        return 1.0 if read is z else z.detach().norm() / read.detach().norm().clamp_min(1e-12)

    def _maps(self, z: Tensor, sites: Sites, by_site: bool = False, by_head: bool = False) -> Maps:
        return Maps(sites, tuple(range(self.here.layout.first, len(z))), by_site=by_site, by_head=by_head)

    def _last(self, z: Tensor, sites: Sites) -> str:
        """The name of the last layer of `sites`."""
        names = [site.name for site in self.here.model.sites((z.shape[-2], z.shape[-1])) if site in sites]
        return names[-1] if names else ""

    def _pass(self, z: Tensor, look: Hooks, after: Callable[[], None] | None = None) -> None:
        here = self.here
        layout = Layout(("cond",), len(z), z.shape[1], here.layout.first)
        there = replace(here, hooks=(*here.hooks, look), layout=layout, observed=False)
        t = self.solver.calls(here.step)[0]
        answer(here.model, [there.request(self.solver.scale(z[layout.first :], t), t)], after)


def _gradient(loss: Tensor, z: Tensor, scale: float) -> Tensor:
    """The gradient of a loss, computed on `scale` times the loss; `scale` is halved until all values are finite, for
    which the host waits in half precision."""
    if not loss.requires_grad:
        return torch.zeros_like(z)
    while True:
        (gradient,) = torch.autograd.grad(loss * scale, z, retain_graph=scale > 1)
        if scale <= 1 or bool(torch.isfinite(gradient).all()):
            return gradient / scale
        scale /= 2

"""What happens at the attention layers of a forward pass: each part of a batch with its edits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from promptweave.core.features import Block, Features, joined
from promptweave.core.memory import Layer, Memory
from promptweave.core.pattern import Attend
from promptweave.core.riders import Riders
from promptweave.core.routes import CALL, IDLE, Plan, Route, Watched, beside
from promptweave.core.rows import Keys, Layout, Row, Rows, Stack, evaluate
from promptweave.core.site import Site, Sites

Edit = Callable[[Site, Rows], Rows]
Call = TypeVar("Call", bound=Callable[..., Any])


def outside_graphs(function: Call) -> Call:
    """Exclude a function from torch.compile: the network around it stays compiled, whatever controls do."""
    return cast(Call, getattr(torch.compiler, "disable")(function))  # noqa: B009 - its type is not known


class Enough(Exception):
    """Raised by an edit that does not need any later layer, to skip the rest of the pass."""


@dataclass(frozen=True, eq=False)
class Tapped:
    """What happens to some rows of a batch: their layout, the edit of attention, `given` rows of a recording, the edit
    of features, the attention layers whose whole transformer blocks they `skip`, and what rides along (`riders`).

    `plans`: what is known of the edit by site, learnt as sites are visited; None if it may do another thing each time.
    `watches`: whether anything at a site is recorded.
    """

    layout: Layout
    edit: Edit
    given: Callable[[Site, int], Row] | None = None
    feature: Callable[[Block, Features], Features] | None = None
    skip: Sites | None = None
    riders: tuple[Riders, ...] = ()
    plans: dict[str, Plan] | None = None
    watches: Callable[[Site], bool] | None = None

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
        known: Callable[[int], Row] | None = None if given is None else partial(given, site)
        rows = self.edit(site, Rows(q, k, v, self.layout, known, project, memory=memory))
        if self.plans is not None and site.name not in self.plans:
            plan: Plan = (Route.of(rows) or CALL) if rows.touched else IDLE
            if plan != CALL and self.watches is not None and self.watches(site):
                plan = Watched(plan if isinstance(plan, Route) else None)
            self.plans[site.name] = plan
        return rows


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
    def resting(self) -> bool:
        """Whether nothing at all happens; the cache serves the layers."""
        return not self.parts and self.values is None and self.after is None

    def plan(self, site: Site) -> Plan | None:
        """What is known of the edit at a site; None if it has to be made."""
        found: list[Plan | None] = [None if part.plans is None else part.plans.get(site.name) for part in self.parts]
        if len(found) == 1:
            return found[0]
        if all(plan is IDLE for plan in found):
            return IDLE
        routes = [plan if isinstance(plan, Route) else None for plan in found]
        if self.memory is None or any(r is None and p is not IDLE for p, r in zip(found, routes, strict=True)):
            return None
        sizes = tuple(part.layout.size for part in self.parts)
        known = self.memory.plans.setdefault((*map(id, found), sizes), {})  # which the plans of the parts keep alive
        if site.name not in known:
            known[site.name] = beside(tuple(zip(routes, sizes, strict=True)))
        return known[site.name]

    def watched(
        self, site: Site, q: Stack, k: Keys, v: Keys, project: Callable[[Tensor], Keys] | None, memory: Layer | None
    ) -> None:
        """Let hooks read the rows of a site of which it is known what it computes."""
        self.parts[0].rows(site, q, k, v, project, memory)

    def recorded(self, site: Site, prompts: tuple[int, ...]) -> list[Row]:
        """The rows of recorded prompts."""
        given = self.parts[-1].given  # further predictions, which come first, have no recording
        assert given is not None
        return [given(site, prompt) for prompt in prompts]

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
        sides: tuple[Tensor, ...] = torch.split(x, [part.layout.size for part in self.parts])
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
        attend: Attend | None = None,
    ) -> Stack | None:
        """The edited output [batch, heads, queries, dim], or None if no row was changed. `project`: text to keys.
        `memory`: the cache of the layer's keys and values, if they stay the same from step to step."""
        if len(self.parts) == 1:
            rows = self.parts[0].rows(site, q, k, v, project, memory)
            return evaluate([rows], attend) if rows.touched else None
        batches: list[Rows] = []
        begin = 0
        for part in self.parts:
            end = begin + part.layout.size
            batches.append(part.rows(site, q[begin:end], k[begin:end], v[begin:end], project, memory))
            begin = end
        return evaluate(batches, attend) if any(rows.touched for rows in batches) else None

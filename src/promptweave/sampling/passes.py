"""Forward passes that runs ask for, and the answers to several in one pass of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Hooks, Text
from promptweave.core.features import Block, Features
from promptweave.core.rows import Layout, Row, Rows
from promptweave.core.site import Site
from promptweave.models.base import Copies, Model, Tap, Tapped


@runtime_checkable
class Source(Protocol):
    """A recorded source: its latents, its rows at the sites and steps that were kept, and its pictures."""

    pictures: Any  # uint8 [images, height, width, 3]

    def latents(self, index: int) -> Tensor:
        """[images, channels, h, w] before step `index`; at the number of steps: the result."""
        ...

    def row(self, step: Step, call: int, site: Site) -> Row: ...


@dataclass(frozen=True, eq=False)
class Request:
    """A forward pass that a run asks for: its part of a batch."""

    z: Tensor
    t: int | float
    context: Tensor
    values: Tensor | None
    pooled: Tensor | None
    guidance: Tensor  # of each row
    part: Tapped | None  # None: nothing to do at any layer
    copies: int  # the latents are so many times the same ones


@dataclass(frozen=True, eq=False)
class Pass:
    """Where a run stands when it asks: which network, step, call of the step, prompts, and who acts.

    `observed`: hooks record what they see; a probe's pass is not.
    """

    model: Model
    step: Step
    text: Text
    guidance: Tensor  # of each prompt
    hooks: Sequence[Hooks]
    layout: Layout
    source: Source | None = None
    call: int = 0
    observed: bool = True

    def request(self, z: Tensor, t: int | float) -> Request:
        """The request for latents [prompts, images, ...] of the prompts that are computed."""
        text, layout = self.text, self.layout
        values = None if text.values is text.keys else self._stack(text.values, text.uncond)
        pooled = None
        if text.pooled is not None and text.uncond_pooled is not None:
            pooled = self._stack(text.pooled, text.uncond_pooled)
        acting = any(type(hook).feature is not Hooks.feature for hook in self.hooks)
        feature = self._feature if acting else None
        part = Tapped(layout, self._edit, self._given if self.source else None, feature)
        return Request(
            z.flatten(0, 1).repeat(len(layout.branches), 1, 1, 1),
            t,
            self._stack(text.keys, text.uncond),
            values,
            pooled,
            self.guidance[layout.first :].repeat(len(layout.branches)).repeat_interleave(layout.images),
            part if self.hooks else None,
            len(layout.branches),
        )

    def _stack(self, cond: Tensor, uncond: Tensor) -> Tensor:
        sides = {"uncond": uncond, "cond": cond}
        stacked = torch.cat([sides[branch][self.layout.first :] for branch in self.layout.branches])
        return stacked.repeat_interleave(self.layout.images, 0)

    def _edit(self, site: Site, rows: Rows) -> Rows:
        for hook in self.hooks:
            if self.observed:
                hook.observe(self.step, site, rows)
            rows = hook.attention(self.step, site, rows)
        return rows

    def _feature(self, block: Block, features: Features) -> Features:
        for hook in self.hooks:
            features = hook.feature(self.step, block, features)
        return features

    def _given(self, site: Site, prompt: int) -> Row:
        assert self.source is not None
        return self.source.row(self.step, self.call, site)


def answer(model: Model, requests: Sequence[Request], after: Callable[[], None] | None = None) -> list[Tensor]:
    """The outputs of the network for several requests, in one pass; `after` is called while it is still tapped."""
    alone = requests[0] if len(requests) == 1 else None
    sizes = [len(request.z) for request in requests]

    def joined(name: str) -> Any:
        found = [getattr(request, name) for request in requests]
        return found[0] if alone else None if found[0] is None else torch.cat(found)

    times = [float(r.t) for r, size in zip(requests, sizes, strict=True) for _ in range(size)]
    t = alone.t if alone else torch.tensor(times, device=requests[0].z.device)
    values = None
    if any(request.values is not None for request in requests):
        values = torch.cat([r.context if r.values is None else r.values for r in requests])
    tap = None
    if values is not None or any(request.part for request in requests):
        untouched = [Tapped(Layout(("cond",), size), _keep) for size in sizes]
        parts = tuple(r.part or plain for r, plain in zip(requests, untouched, strict=True))
        tap = Tap(parts, values, after)
    output = model.predict(
        joined("z"), t, joined("context"), tap, pooled=joined("pooled"), guidance=joined("guidance"),
        copies=Copies(tuple((size, request.copies) for size, request in zip(sizes, requests, strict=True))),
    )  # fmt: skip
    return list(output.split(sizes))


def _keep(site: Site, rows: Rows) -> Rows:
    return rows

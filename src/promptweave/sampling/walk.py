"""One run as a generator that asks for forward passes, and a driver that answers several runs with one pass."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Hooks, Text
from promptweave.core.maps import Maps
from promptweave.core.rows import Branch, Layout, Row, Rows
from promptweave.core.site import Site, Sites
from promptweave.models.base import Model, Solver, Tap, Tapped
from promptweave.sampling.steps import guide

Progress = Callable[[Step, Tensor], None]


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


@dataclass(frozen=True, eq=False)
class Pass:
    """Where a run stands when it asks: which network, step, call of the step, prompts, and who acts."""

    model: Model
    step: Step
    text: Text
    guidance: Tensor  # of each prompt
    hooks: Sequence[Hooks]
    layout: Layout
    source: Source | None = None
    call: int = 0

    def request(self, z: Tensor, t: int | float) -> Request:
        """The request for latents [prompts, images, ...] of the prompts that are computed."""
        text, layout = self.text, self.layout
        values = None if text.values is text.keys else self._stack(text.values, text.uncond)
        pooled = None
        if text.pooled is not None and text.uncond_pooled is not None:
            pooled = self._stack(text.pooled, text.uncond_pooled)
        part = Tapped(layout, self._edit, self._given if self.source else None)
        return Request(
            z.flatten(0, 1).repeat(len(layout.branches), 1, 1, 1),
            t,
            self._stack(text.keys, text.uncond),
            values,
            pooled,
            self.guidance[layout.first :].repeat(len(layout.branches)).repeat_interleave(layout.images),
            part if self.hooks else None,
        )

    def _stack(self, cond: Tensor, uncond: Tensor) -> Tensor:
        sides = {"uncond": uncond, "cond": cond}
        stacked = torch.cat([sides[branch][self.layout.first :] for branch in self.layout.branches])
        return stacked.repeat_interleave(self.layout.images, 0)

    def _edit(self, site: Site, rows: Rows) -> Rows:
        for hook in self.hooks:
            rows = hook.attention(self.step, site, rows)
        return rows

    def _given(self, site: Site, prompt: int) -> Row:
        assert self.source is not None
        return self.source.row(self.step, self.call, site)


def branches(model: Model, guidance: int | float) -> tuple[Branch, ...]:
    """Both halves for classifier-free guidance, one where it is off or an input of the network."""
    return ("uncond", "cond") if model.guided and guidance != 1 else ("cond",)


def walk(
    model: Model,
    solver: Solver,
    text: Text,
    z: Tensor,
    guidance: int | float,
    hooks: Sequence[Hooks],
    *,
    source: Source | None = None,
    progress: Progress | None = None,
) -> Generator[Request, Tensor, Tensor]:
    """A run from noise [images, ...] to latents [prompts, images, ...]; a recorded source takes the place of row 0."""
    count, first = len(text.keys), 0 if source is None else 1
    layout = Layout(branches(model, guidance), count, len(z), first)
    z = solver.start(z).expand(count, *z.shape)
    begin = max((hook.first_step for hook in hooks), default=0)
    for step in solver.steps[begin:]:
        strength = torch.full((count,), float(guidance), device=z.device)
        for hook in hooks:
            strength = hook.strength(step, strength)
        for index, hook in enumerate(hooks):
            z = hook.before_step(step, z, prober(Pass(model, step, text, strength, hooks[:index], layout, source)))
        conditioned = text
        for hook in hooks:
            conditioned = hook.condition(step, conditioned)
        before = z
        moving = z[first:]
        for call, t in enumerate(solver.calls(step)):
            here = Pass(model, step, conditioned, strength, hooks, layout, source, call)
            output = yield here.request(solver.scale(moving, t), t)
            output = output.unflatten(0, (len(layout.branches), *moving.shape[:2]))
            if len(layout.branches) == 2:
                output = guide(output[0], output[1], strength[first:].to(output.dtype).view(-1, 1, 1, 1, 1))
            else:
                output = output[0]
            moving = solver.advance(output.flatten(0, 1), moving.flatten(0, 1), t).unflatten(0, moving.shape[:2])
        z = moving if source is None else torch.cat([source.latents(step.index + 1).to(before)[None], moving])
        for hook in hooks:
            z = hook.after_step(step, z)
        if progress:
            progress(step, z)
    return z


def prober(here: Pass) -> Callable[[Tensor, Sites], Maps]:
    """One conditional pass under the controls to the left; the maps keep their gradient to the latents."""

    def probe(z: Tensor, sites: Sites) -> Maps:
        maps = Maps(sites, tuple(range(here.layout.first, z.shape[0])))

        class Look(Hooks):
            def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
                maps.add(step, site, rows)
                return rows

        layout = Layout(("cond",), z.shape[0], z.shape[1], here.layout.first)
        look = Pass(here.model, here.step, here.text, here.guidance, (*here.hooks, Look()), layout, here.source)
        with torch.enable_grad():
            answer(here.model, [look.request(z[layout.first :], here.step.t)])
        return maps

    return probe


def answer(model: Model, requests: Sequence[Request]) -> list[Tensor]:
    """The outputs of the network for several requests, in one pass."""
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
        tap = Tap(parts, values, len(alone.part.layout.branches) if alone and alone.part else 1)
    output = model.predict(joined("z"), t, joined("context"), tap, pooled=joined("pooled"), guidance=joined("guidance"))
    return list(output.split(sizes))


def _keep(site: Site, rows: Rows) -> Rows:
    return rows


def drive(model: Model, runs: Sequence[Generator[Request, Tensor, Tensor]]) -> list[Tensor]:
    """Drive runs to their ends; those whose latents have the same shape share every forward pass."""
    results: dict[int, Tensor] = {}
    waiting = {number: next(run) for number, run in enumerate(runs)}
    while waiting:
        groups: dict[tuple[Any, ...], list[int]] = {}
        for number, request in waiting.items():
            shape = (request.z.shape[1:], request.context.shape[1:], request.pooled is None)
            groups.setdefault(shape, []).append(number)
        for numbers in groups.values():
            outputs = answer(model, [waiting[number] for number in numbers])
            for number, output in zip(numbers, outputs, strict=True):
                try:
                    waiting[number] = runs[number].send(output)
                except StopIteration as end:
                    del waiting[number]
                    results[number] = end.value
    return [results[number] for number in range(len(runs))]

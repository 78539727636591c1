"""Forward passes that runs request, and answers to several requests with one pass of the network."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Extra, Hooks, Text
from promptweave.core.features import Block, Features
from promptweave.core.memory import Memory
from promptweave.core.routes import Plan
from promptweave.core.rows import Layout, NotRecorded, Row, Rows
from promptweave.core.site import Site
from promptweave.core.tapping import Tap, Tapped
from promptweave.models.base import Model
from promptweave.models.copies import Copies


@runtime_checkable
class Source(Protocol):
    """A recorded source: its latents, its rows at the sites and steps that were kept, and its images."""

    pictures: Any  # uint8 [images, height, width, 3]

    def latents(self, index: int) -> Tensor:
        """The latents [images, channels, h, w] before step `index`; for the number of steps, the final ones."""
        ...

    def row(self, step: Step, call: int, site: Site) -> Row: ...


@dataclass(frozen=True, eq=False)
class Request:
    """A forward pass that a run asks for: rows of a batch, in parts that each have their own layout."""

    z: Tensor
    t: int | float
    context: Tensor
    values: Tensor | None
    pooled: Tensor | None
    guidance: Tensor  # of each row
    parts: tuple[Tapped, ...]  # empty if nothing acts at any layer
    copies: int  # the latents are so many copies of the same rows
    memory: Memory


Beside = dict[tuple[int, str], Rows]  # rows of extra predictions at a layer, by the hook that asked and by name


@dataclass(frozen=True, eq=False)
class Pass:
    """The state of a run when it asks for a forward pass: network, step, solver call, prompts, and the acting hooks.

    `extra`: set for an extra prediction, which hook `owner` asked for under `name`. `observed`: whether hooks record
    what they see; they do not in probes and extra predictions. `beside`: where the extra predictions of a forward pass
    leave their rows for the hooks that asked for them. `channels` [images, more, h, w]: what the network reads beside
    the latents.
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
    extra: Extra | None = None
    owner: int = -1
    name: str = ""
    beside: Beside = field(default_factory=dict[tuple[int, str], Rows])
    memory: Memory = field(default_factory=Memory)
    channels: Tensor | None = None

    def of(self, owner: int, name: str, extra: Extra, look: Hooks | None) -> Pass:
        """The pass of an extra prediction in the same state; `look` reads the maps that it wants."""
        layout = Layout(("cond",), self.layout.prompts, self.layout.images, self.layout.first)
        hooks = (
            *(self.hooks if extra.controlled else ()),
            *((_Editing(extra.edit, extra.state),) if extra.edit else ()),
        )
        given = extra.text
        text = self.text if given is None else self.memory.once(given, lambda: given.repeated(layout.prompts))
        return replace(
            self, text=text, hooks=hooks if look is None else (*hooks, look), layout=layout, observed=False,
            extra=extra, owner=owner, name=name,
        )  # fmt: skip

    def request(self, z: Tensor, t: int | float, extras: Sequence[Pass] = ()) -> Request:
        """The request for latents [computed prompts, images, ...]. Rows of extra predictions come before the run's own,
        so that their attention is known when the run's is edited."""
        passes = [*extras, self]
        own = [one.extra.latents for one in passes if one.extra is not None]
        same = all(latents is None for latents in own)
        latents = [z if x is None else x for x in own]
        rows = [self._widened(x).flatten(0, 1) for x in [*latents, *[z] * len(self.layout.branches)]]
        values = None
        if any(one.text.only_values is not None for one in passes):
            values = self._joined("values", passes, [(one.text.values, one.text.uncond) for one in passes])
        acting = any(one.hooks or (one.extra is not None and one.extra.skip) for one in passes)
        guidance = torch.cat([self.guidance[self.layout.first :]] * len(rows)).repeat_interleave(self.layout.images)
        return Request(
            torch.cat(rows) if len(rows) > 1 else rows[0],
            t,
            self._joined("context", passes, [(one.text.cond, one.text.uncond) for one in passes]),
            values,
            self._pooled(passes),
            guidance,
            self._tapped(extras) if acting else (),
            len(rows) if same else 1,
            self.memory,
        )

    def _tapped(self, extras: Sequence[Pass]) -> tuple[Tapped, ...]:
        """What happens to the rows. An edit that reads rows of extra predictions has no route."""
        if not extras:
            return (self.tapped,)
        beside = tuple((one.owner, one.name) for one in extras)
        return (*(one.tapped for one in extras), replace(self.tapped, plans=self._plans(beside)))

    def _widened(self, z: Tensor) -> Tensor:
        """Latents [prompts, images, ...] with the channels that the network reads beside them."""
        more = self.channels
        return z if more is None else torch.cat([z, more.to(z).expand(len(z), *more.shape)], 2)

    def _joined(self, name: str, passes: Sequence[Pass], texts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The encoded texts of all passes, row by row; the same tensor for as long as the texts are the same."""
        key = f"{name} {'-'.join(''.join(one.layout.branches) for one in passes)}"
        parts = tuple(x for pair in texts for x in pair)
        make = lambda: torch.cat([one.stack(*pair) for one, pair in zip(passes, texts, strict=True)])  # noqa: E731
        return self.memory.stacked(key, parts, make)

    @staticmethod
    def _pooled(passes: Sequence[Pass]) -> Tensor | None:
        found: list[tuple[Tensor, Tensor]] = []
        for one in passes:
            if one.text.pooled is None or one.text.uncond_pooled is None:
                return None
            found.append((one.text.pooled, one.text.uncond_pooled))
        return passes[-1]._joined("pooled", passes, found)

    def stack(self, cond: Tensor, uncond: Tensor) -> Tensor:
        """One row for each image of each computed prompt, branch by branch."""
        sides = {"uncond": uncond, "cond": cond}
        stacked = torch.cat([sides[branch][self.layout.first :] for branch in self.layout.branches])
        return stacked.repeat_interleave(self.layout.images, 0)

    @property
    def tapped(self) -> Tapped:
        """What happens to these rows at each layer."""
        acting = any(type(hook).feature is not Hooks.feature for hook in self.hooks)
        skip = None if self.extra is None else self.extra.skip
        riding = [hook for hook in self.hooks if self.observed and type(hook).riders is not Hooks.riders]
        riders = tuple(found for hook in riding if (found := hook.riders(self.step)) is not None)
        given = self._given if self.source else None
        feature = self._feature if acting else None
        return Tapped(self.layout, self._edit, given, feature, skip, riders, self._plans(), self._watches)

    def _plans(self, beside: tuple[tuple[int, str], ...] = ()) -> dict[str, Plan] | None:
        """What is known of the edit by site, the same in all passes in which the hooks are in the same state."""
        if self.extra is None and not self.observed:
            return None
        states: list[Hashable] = [self.owner, self.name, beside]
        for hook in self.hooks:
            state = hook.state(self.step)
            if state is None and type(hook).attention is not Hooks.attention:
                return None
            states.append(state)
        return self.memory.plans.setdefault((self.layout, *states), {})

    def _watches(self, site: Site) -> bool:
        """Whether a hook records anything at a site."""
        if not self.observed:
            return False
        hooks = (hook for hook in self.hooks if type(hook).observe is not Hooks.observe)
        return any(hook.watches(self.step, site) for hook in hooks)

    def _edit(self, site: Site, rows: Rows) -> Rows:
        for owner, hook in enumerate(self.hooks):
            if self.observed and type(hook).observe is not Hooks.observe:
                hook.observe(self.step, site, rows)
            if self.beside and self.extra is None:
                asked = {name: found for (asker, name), found in self.beside.items() if asker == owner}
                rows = replace(hook.attention(self.step, site, replace(rows, beside=asked)), beside={})
            else:
                rows = hook.attention(self.step, site, rows)
        if self.extra is not None:
            self.beside[self.owner, self.name] = rows
        elif self.beside:
            self.beside.clear()
        return rows

    def _feature(self, block: Block, features: Features) -> Features:
        for hook in self.hooks:
            features = hook.feature(self.step, block, features)
        return features

    def _given(self, site: Site, prompt: int) -> Row:
        assert self.source is not None
        if self.extra is not None:
            raise NotRecorded(
                "A recording holds the attention of the source's own predictions, and a control reads that of further "
                f"predictions, {self.name!r}. Edit without a recording."
            )
        return self.source.row(self.step, self.call, site)


class _Editing(Hooks):
    """The edit of an extra prediction, which acts after the controls."""

    def __init__(self, edit: Callable[[Site, Rows], Rows], kind: Hashable | None) -> None:
        self.edit, self.kind = edit, kind

    def state(self, step: Step) -> Hashable | None:
        return self.kind

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        return self.edit(site, rows)


def answer(model: Model, requests: Sequence[Request], after: Callable[[], None] | None = None) -> list[Tensor]:
    """The network's outputs for several requests, in one pass; `after` is called while its layers are still tapped."""
    alone = requests[0] if len(requests) == 1 else None
    sizes = [len(request.z) for request in requests]

    def joined(name: str) -> Any:
        found = [getattr(request, name) for request in requests]
        return found[0] if alone else None if found[0] is None else torch.cat(found)

    at = requests[0].z.device
    times = [(size, float(r.t)) for r, size in zip(requests, sizes, strict=True)]
    t = alone.t if alone else torch.cat([torch.full((size,), time, device=at) for size, time in times])
    values = None
    if any(request.values is not None for request in requests):
        values = torch.cat([r.context if r.values is None else r.values for r in requests])
    tap = None
    if alone is not None and not alone.parts and values is None and after is None:
        tap = Tap((), memory=alone.memory)
    elif values is not None or any(request.parts for request in requests):
        parts = [part for r, size in zip(requests, sizes, strict=True) for part in r.parts or (untouched(size),)]
        tap = Tap(tuple(parts), values, after, None if alone is None else alone.memory)
    output = model.predict(
        joined("z"), t, joined("context"), tap, pooled=joined("pooled"), guidance=joined("guidance"),
        copies=Copies(tuple((size, request.copies) for size, request in zip(sizes, requests, strict=True))),
    )  # fmt: skip
    return list(output.split(sizes))


def untouched(rows: int) -> Tapped:
    """Rows at which nothing acts."""
    return Tapped(Layout(("cond",), rows), _keep)


def _keep(site: Site, rows: Rows) -> Rows:
    return rows

"""Prompt mixing: Localizing Object-level Shape Variations (Patashnik et al. 2023, arXiv 2303.11306).

The first steps of a run form the layout, the next ones the shapes, the last ones the details. So in `window`,
cross-attention keeps its keys but takes its values from the prompt with a proxy w' instead of the word w, and the
proxy's shape appears in the word's region (M moves the tokens after the proxy back to their columns):

    O = softmax(Q K(w)^T / sqrt(d)) M V(w').

The source's self-attention keeps the shapes of other objects: with o = 1 in the source's region of w, and p = 1 in that
of a word of `preserve` (regions B of `LocalBlend`), a target has, in the window `self_attention`,

    A_t <- m A_s + (1 - m) A_t,    m_ij = (1 - o_i) (1 - o_j) max(p_i, p_j).

and after the fraction `background` of the steps, `LocalBlend` keeps the source's latents outside the regions of w.
Differs from the authors' code: regions come from the mean map of the steps so far (theirs: o and p from each layer in
an earlier run, the background from clustered self-attention, blended once); there M is the identity for every proxy.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Number, Span, Step, Window
from promptweave.core.control import Control, Hooks, NoEffect, Run, Text
from promptweave.core.encoded import Conditioned
from promptweave.core.fields import Command, Option
from promptweave.core.pattern import Dense, Pattern, Term
from promptweave.core.rows import Rows
from promptweave.core.site import Site, Sites
from promptweave.core.targets import SOURCE, chosen
from promptweave.methods.local_blend import LocalBlend, region
from promptweave.words import counterparts, replace_map
from promptweave.words.parts import swapped


@dataclass(frozen=True)
class PromptMixing(Control):
    """Vary a shape: `edit(prompt, prompt, controls=[PromptMixing("bowl", "vase")])`. Raises ValueError or NoEffect."""

    requires: ClassVar[frozenset[Literal["cross", "joint", "guided"]]] = frozenset({"cross"})
    command: ClassVar[Command] = Command("mix", "Vary the shape of an object (prompt mixing).", prompts="repeated",
        counted="proxies", example='"a red car in the snow" --word car --proxy house --proxy bike')  # fmt: skip
    word: Annotated[str, Option("Word of the object whose shape changes.", group="What changes")]
    proxies: Annotated[
        tuple[str, ...] | str,
        Option(
            "What takes the word's place in the early steps, one for each target.", group="What changes", flag="--proxy"
        ),
    ]
    window: Annotated[Span, Option("Fraction of the steps in which the proxy acts.", low=0, high=1)] = (0.14, 0.34)
    preserve: Annotated[tuple[str, ...] | str, Option("Word of an object that keeps its shape.", group="Where")] = ()
    self_attention: Annotated[Span, Option("Fraction of the steps in which shapes are preserved.", low=0, high=1)] = 0.8
    threshold: Annotated[Number, Option("Fraction of a map's maximum that bounds an object.", low=0, high=1)] = 0.3
    background: Annotated[Number, Option("Fraction of the steps before the background is kept.", low=0, high=1)] = 0.7
    targets: tuple[int, ...] | None = None

    def caption(self, target: int) -> str:
        proxies = (self.proxies,) if isinstance(self.proxies, str) else self.proxies
        places = range(1, len(proxies) + 1) if self.targets is None else self.targets
        return f"{self.word} shaped as {dict(zip(places, proxies, strict=False)).get(target, 'another')}"

    def bind(self, run: Run) -> Hooks:
        if not any(site.kind == "cross" for site in run.sites):
            raise ValueError("PromptMixing needs cross-attention. In joint models use Replace, Consist or FlowEdit.")
        rows = chosen(self.targets, run)
        proxies, preserve = ((x,) if isinstance(x, str) else x for x in (self.proxies, self.preserve))
        if len(proxies) != len(rows):
            raise ValueError(f"PromptMixing takes a proxy for each target, here {len(rows)}. Received {proxies}.")
        windows = [Window.of(getattr(self, n), f"{n} of PromptMixing") for n in ("window", "self_attention")]
        if not windows[0].steps(run.steps) or (preserve and not windows[1].steps(run.steps)):
            raise NoEffect(f"PromptMixing needs one of the {run.steps} steps in its windows. Received {windows}.")
        values, weights = dict[int, Tensor](), torch.zeros(run.tokens, 2)  # weights: of o and p
        weights[[token for word in preserve for token in run.words[SOURCE].find(word)], 1] = 1
        for row, proxy in zip(rows, proxies, strict=True):
            words = run.words[row]
            own = [unit for unit in words.units if set(unit.tokens) & set(words.find(self.word))]
            mixed = swapped(words, own[0], own[-1], proxy)
            if run.read(mixed).prompt == words.prompt:
                raise NoEffect(f"A proxy is another word than the one that changes. Received {proxy!r}.")
            encoding = run.encode([mixed]).cond[0]
            values[row] = replace_map(words, run.read(mixed)).to(encoding) @ encoding
            weights[list(counterparts(self.word, run.words[SOURCE], words).get("source", ())), 0] = 1
        if weights.prod(1).any():
            raise NoEffect(f"preserve must not name the word that changes. Received {self.word!r} for both.")
        maps = Maps(run.map_sites, (SOURCE,), {SOURCE: weights.to(run.device)}, own=True)
        where = Sites("self", max_queries=4 * run.map_grid[0] * run.map_grid[1])  # 32 x 32 at 512 pixels
        blend = LocalBlend(self.word, (), self.threshold, start=self.background, targets=rows)
        return _Mixing(self, values, maps, where, blend.bind(run) if self.background < 1 else Hooks())


@dataclass
class _Mixing(Hooks):
    control: PromptMixing
    values: Mapping[int, Float[Tensor, "tokens dim"]]  # M V(w') before the projection
    maps: Maps  # of the source
    where: Sites
    blend: Hooks
    steps: set[int] = field(default_factory=set[int])
    texts: Conditioned = field(default_factory=Conditioned)

    def condition(self, step: Step, text: Text) -> Text:
        if step not in Window.of(self.control.window):
            return text
        self.steps.add(step.index)
        values = self.values
        return self.texts(
            text, lambda: text.with_values(torch.stack([values.get(row, own) for row, own in enumerate(text.values)]))
        )

    def state(self, step: Step) -> Hashable:
        mixed = bool(self.control.preserve) and step in Window.of(self.control.self_attention)
        return mixed, bool(self.maps.counts)

    def watches(self, step: Step, site: Site) -> bool:
        return self.maps.wants(step, site)  # the blend's are of the same layers

    def observe(self, step: Step, site: Site, rows: Rows) -> None:
        self.blend.observe(step, site, rows)
        self.maps.add(step, site, rows)

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        wanted = self.control.preserve and site in self.where and step in Window.of(self.control.self_attention)
        if not wanted or not self.maps.counts:
            return rows
        heat, source = self.maps.total(SOURCE), rows["cond"][SOURCE].pattern.dense
        o, p = (region(heat[..., c], site.grid, self.control.threshold).flatten(1) for c in (0, 1))
        m = ((p[:, :, None] | p[:, None]) & ~(o[:, :, None] | o[:, None]))[:, None]
        for row in self.values:
            dense = Dense(torch.where(m, source, rows["cond"][row].pattern.dense))
            rows = rows.put("cond", row, pattern=Pattern((Term(dense),)))
        return rows

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        return self.blend.after_step(step, z)

    def report(self) -> dict[str, Any]:
        return {"mixed_steps": len(self.steps), **self.blend.report()}

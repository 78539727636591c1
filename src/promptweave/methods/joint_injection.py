"""Prompt-to-Prompt in joint attention (Shin et al. 2025, arXiv 2508.07519): inject the source image's q and k."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from promptweave.core.clock import Step, Window
from promptweave.core.control import Hooks
from promptweave.core.rows import Rows
from promptweave.core.site import Site
from promptweave.core.targets import SOURCE


@dataclass
class JointInjection(Hooks):
    """In the named layers, targets use the source's queries and keys of the image; their text and values stay."""

    window: Window
    names: frozenset[str]
    rows: tuple[int, ...]
    steps: set[int] = field(default_factory=set[int])
    sites: set[str] = field(default_factory=set[str])

    def state(self, step: Step) -> bool:
        return step in self.window

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        if site.name not in self.names or step not in self.window:
            return rows
        self.steps.add(step.index)
        self.sites.add(site.name)
        source = rows["cond"][SOURCE]
        for row in self.rows:
            own = rows["cond"][row]
            q, k = site.with_image(own.q, site.of_image(source.q)), site.with_image(own.k, site.of_image(source.k))
            rows = rows.put("cond", row, q=q, k=k)
        return rows

    def report(self) -> dict[str, Any]:
        return {"joint_steps": len(self.steps), "joint_sites": len(self.sites)}

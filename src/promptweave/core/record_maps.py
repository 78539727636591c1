"""A control that only looks: it records the maps of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from promptweave.core.accumulator import Maps, grid_name
from promptweave.core.clock import Step
from promptweave.core.control import Control, Hooks, Run
from promptweave.core.rows import Rows
from promptweave.core.site import Site, Sites


@dataclass(frozen=True)
class RecordMaps(Control):
    """Accumulate cross-attention. Last in the list of controls it sees effective maps, first the original ones.

    Without `sites` those of `run.map_sites` are taken, without `prompts` all. Maps are summed; `by_site`, `by_step` and
    `by_head` keep them apart, `steps` chooses some. `columns`: for each prompt the tokens whose maps are kept. `own`:
    the maps that a prompt's own queries and keys make, whatever the controls did. `of`: what a joint layer's pixels
    look at. Watching changes no bit of what is watched.
    """

    sites: Sites | None = None
    prompts: tuple[int, ...] | None = None
    by_site: bool = False
    by_step: bool = False
    by_head: bool = False
    own: bool = False
    steps: tuple[int, ...] | None = None
    columns: tuple[tuple[int, ...], ...] | None = None
    of: Literal["text", "image"] = "text"

    def bind(self, run: Run) -> RecordedMaps:
        sites, prompts = self._chosen(run)
        if self.by_head and not self.by_site:
            raise ValueError("Heads are kept apart layer by layer. Received by_head without by_site: set both.")
        late = [step for step in self.steps or () if not 0 <= step < run.steps]
        if late:
            raise ValueError(f"steps must be in 0 to {run.steps - 1}, those of the run. Received {late[0]}.")
        weights = None
        if self.columns is not None:
            whole = torch.eye(run.tokens, device=run.device)
            weights = {p: whole[:, list(self.columns[p])] for p in prompts}
        steps = None if self.steps is None else frozenset(self.steps)
        return RecordedMaps(
            Maps(sites, prompts, weights, self.own, self.by_site, self.by_step, self.by_head, steps, self.of)
        )

    def estimate(self, run: Run) -> int:
        """Bytes of what a run will keep."""
        sites, prompts = self._chosen(run)
        steps = (run.steps if self.steps is None else len(set(self.steps))) if self.by_step else 1
        size = max(4, torch.empty((), dtype=run.dtype).element_size())
        numbers: dict[tuple[int, str], int] = {}
        for site in run.sites:
            if site not in sites:
                continue
            for prompt in prompts:
                text = run.tokens if self.columns is None else len(self.columns[prompt])
                channels = site.queries if site.kind == "self" or (site.image and self.of == "image") else text
                where = site.name if self.by_site else grid_name(site.grid)
                numbers[prompt, where] = site.queries * channels * (site.heads if self.by_head else 1)
        return sum(numbers.values()) * steps * run.images * size

    def _chosen(self, run: Run) -> tuple[Sites, tuple[int, ...]]:
        prompts = tuple(range(len(run.prompts))) if self.prompts is None else self.prompts
        return self.sites or run.map_sites, prompts


class RecordedMaps(Hooks):
    """A run of `RecordMaps`; what it saw is in `maps`, that of single steps in main memory; `times` are the steps'."""

    def __init__(self, maps: Maps) -> None:
        self.maps = maps
        self.times: dict[int, int | float] = {}

    def observe(self, step: Step, site: Site, rows: Rows) -> None:
        self.times[step.index] = step.t
        self.maps.add(step, site, rows)

    def after_step(self, step: Step, z: torch.Tensor) -> torch.Tensor:
        if self.maps.by_step:
            for key in [key for key in self.maps.sums if key[2] == step.index]:
                self.maps.sums[key] = self.maps.sums[key].cpu()
        return z

"""A control that records the attention maps of a run and changes nothing; maps refined by self-attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.accumulator import Maps, grid_name
from promptweave.core.clock import Step
from promptweave.core.control import Control, Hooks, Run
from promptweave.core.rows import Rows
from promptweave.core.site import Site, Sites


@dataclass(frozen=True)
class RecordMaps(Control):
    """Record attention maps. Last in the list of controls it sees the edited maps, first in it the original ones.

    `sites`: the layers, None: `run.map_sites`. `prompts`: the rows, None: all. Maps are averaged over heads and summed
    over layers of one grid and over steps, unless `by_head`, `by_site` or `by_step` keeps them apart. `steps`: indices
    of the steps, None: all. `columns`: for each prompt the tokens whose maps are kept, None: all. `own`: the maps of a
    prompt's own queries and keys, ignoring other controls. `of`: whether maps of joint layers are the attention to the
    text or to the image. Recording never changes an image. Raises ValueError for a step that the run does not have,
    and for `by_head` without `by_site`.
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
            raise ValueError("Heads can be kept apart only within a layer. Received by_head without by_site. Set both.")
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
        """Bytes that the maps of a run will take."""
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
    """One run of `RecordMaps`: `maps`, in main memory if kept by step, and `times`, the training time of each step."""

    def __init__(self, maps: Maps) -> None:
        self.maps = maps
        self.times: dict[int, int | float] = {}

    def state(self, step: Step) -> bool:
        return self.maps.steps is None or step.index in self.maps.steps

    def watches(self, step: Step, site: Site) -> bool:
        return self.maps.wants(step, site)

    def observe(self, step: Step, site: Site, rows: Rows) -> None:
        self.times[step.index] = step.t
        self.maps.add(step, site, rows)

    def after_step(self, step: Step, z: torch.Tensor) -> torch.Tensor:
        if self.maps.by_step:
            self.maps.offload(step.index)
        return z


def self_recorder(run: Run, grid: int | tuple[int, int] | None = None) -> RecordMaps:
    """A recorder of self-attention (in joint layers too) on a grid; None for that of the word maps."""
    wanted = run.map_grid if grid is None else (grid, grid) if isinstance(grid, int) else grid
    looking = [site for site in run.sites if site.kind in ("self", "joint")]
    joint = [site for site in looking if site.kind == "joint" and site.grid == wanted]
    chosen = joint or [site for site in looking if site.grid == wanted]
    if not chosen:
        have = ", ".join(dict.fromkeys(f"{site.grid[0]}x{site.grid[1]}" for site in looking))
        raise ValueError(
            f"Self-attention of this model and size has the grids {have}. Received {wanted[0]}x{wanted[1]}. "
            "Choose one of them."
        )
    return RecordMaps(Sites(names=tuple(site.name for site in chosen)), of="image")


def refined(
    maps: Float[Tensor, "height width words"], attention: Float[Tensor, "height width pixels"], times: int
) -> Float[Tensor, "height width words"]:
    """Maps multiplied `times` times by the image's attention to itself, whose rows are made to sum to 1."""
    square: Tensor = attention.flatten(0, 1)
    square = square / square.sum(-1, keepdim=True)
    flat: Tensor = maps.flatten(0, 1).to(square)
    for _ in range(times):
        flat = square @ flat
    return flat.reshape(maps.shape)

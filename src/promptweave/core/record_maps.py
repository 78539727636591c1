"""A control that only looks: it records the maps of a run."""

from __future__ import annotations

from dataclasses import dataclass

from promptweave.core.clock import Step
from promptweave.core.control import Control, Hooks, Run
from promptweave.core.maps import Maps
from promptweave.core.rows import Rows
from promptweave.core.site import Site, Sites


@dataclass(frozen=True)
class RecordMaps(Control):
    """Accumulate cross-attention. Last in the list of controls it sees effective maps, first the original ones.

    Without `sites` those of `run.map_sites` are taken, without `prompts` all.
    """

    sites: Sites | None = None
    prompts: tuple[int, ...] | None = None
    by_site: bool = False
    by_step: bool = False

    def bind(self, run: Run) -> RecordedMaps:
        sites = self.sites or run.map_sites
        prompts = tuple(range(len(run.prompts))) if self.prompts is None else self.prompts
        return RecordedMaps(Maps(sites, prompts, by_site=self.by_site, by_step=self.by_step))


class RecordedMaps(Hooks):
    """A run of `RecordMaps`; what it saw is in `maps`."""

    def __init__(self, maps: Maps) -> None:
        self.maps = maps

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        self.maps.add(step, site, rows)
        return rows

"""What inversions bring to a run: controls that belong to the source as much as to its targets."""

from __future__ import annotations

from dataclasses import dataclass

from promptweave.core.control import Control, Run
from promptweave.core.kept import NOTHING, Kept


@dataclass(frozen=True, eq=False)
class OfSource(Control):
    """A control that also acts where the source alone is run, and reads no attention."""

    def for_source(self) -> Control:
        return self

    def reads(self, run: Run) -> Kept:
        return NOTHING

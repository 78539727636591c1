"""Inversions whose runs leave out the noisiest steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from promptweave.core.clock import Number
from promptweave.core.control import NoEffect, Run
from promptweave.core.fields import Option
from promptweave.inversion.inverting import CannotInvert, Inversion


@dataclass(frozen=True)
class Skipping(Inversion):
    """An inversion of the steps after the fraction `skip`; `nearest`: whether it is rounded, rather than cut off."""

    nearest: ClassVar[bool] = False
    skip: Annotated[Number, Option("Fraction of the steps that are left out.", low=0, high=1)] = 0.0

    def begin(self, steps: int) -> int:
        """The first of `steps` steps that is made. Raises CannotInvert if none is left."""
        first = round(self.skip * steps) if self.nearest else int(self.skip * steps + 1e-6)
        if first >= steps:
            raise CannotInvert(f"skip must leave at least one of the {steps} steps. Received {self.skip}.")
        return first


def check_begin(begin: int, run: Run) -> None:
    """Raise NoEffect if a run that begins after `begin` steps has none left."""
    if begin >= run.steps:
        raise NoEffect(f"No step is left after the first {begin} of {run.steps}. Skip fewer.")

"""Which rows of a run a control acts on: row 0 is the source, the others are targets."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, cast

from promptweave.core.control import Run
from promptweave.core.shown import shown

SOURCE = 0


def chosen(targets: Any, run: Run) -> tuple[int, ...]:
    """The rows of the targets that a control acts on, from 1; None: all. Raises ValueError for any other row."""
    everyone = tuple(range(1, len(run.prompts)))
    if not everyone:
        raise ValueError(
            "This control acts on targets, and the run has one prompt, the source. Add a target prompt "
            "(to re-weight the words of the source, add the same prompt again)."
        )
    if targets is None:
        return everyone
    rows: Sequence[Any] = cast("Sequence[Any]", targets) if isinstance(targets, tuple | list) else ()
    if not rows or not all(not isinstance(row, bool) and isinstance(row, Integral) and row in everyone for row in rows):
        raise ValueError(
            f"targets must name rows 1 to {len(everyone)} of this run. Received {shown(cast(object, targets))}."
        )
    return tuple(map(int, rows))

"""Which rows of a run a control acts on: row 0 is the source, the others are targets."""

from __future__ import annotations

from promptweave.core.control import Run

SOURCE = 0


def chosen(targets: tuple[int, ...] | None, run: Run) -> tuple[int, ...]:
    """The rows of the targets that a control acts on, from 1; None: all. Raises ValueError for any other row."""
    everyone = tuple(range(1, len(run.prompts)))
    if not everyone:
        raise ValueError(
            "This control acts on targets, and the run has one prompt, the source. Add a target prompt "
            "(to re-weight the words of the source, add the same prompt again)."
        )
    if targets is None:
        return everyone
    if not targets or not set(targets) <= set(everyone):
        raise ValueError(f"targets must name rows 1 to {len(everyone)} of this run. Received {targets}.")
    return targets

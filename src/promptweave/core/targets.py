"""Which rows of a run a control acts on: row 0 is the source, the others are targets."""

from __future__ import annotations

from promptweave.core.control import Run

SOURCE = 0


def chosen(targets: tuple[int, ...] | None, run: Run) -> tuple[int, ...]:
    """The targets a control acts on: those asked for, else all. Rows are counted from 1, the source is row 0."""
    everyone = tuple(range(1, len(run.prompts)))
    if not everyone:
        raise ValueError(
            "This control acts on targets, and the run has one prompt, which is the source. Give it a target too "
            "(to re-weight the words of a prompt, the same prompt again)."
        )
    if targets is None:
        return everyone
    if not targets or not set(targets) <= set(everyone):
        raise ValueError(f"targets must name rows 1 to {len(everyone)} of this run. Received {targets}.")
    return targets

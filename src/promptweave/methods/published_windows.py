"""Windows of Prompt-to-Prompt's controls, and how the authors' code counts them (`reference_compat`): in network calls,
truncated as floats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from promptweave.core.clock import Span, Window
from promptweave.core.control import Run


def calls(run: Run) -> int:
    """The network calls of a run, which the authors' code counts instead of steps. Raises ValueError for solvers with
    which that code cannot run."""
    if run.calls > run.steps + 1:
        raise ValueError(
            "reference_compat counts network calls as the authors' code does, which allows one call more than steps. "
            f"Received a solver of {run.calls} calls in {run.steps} steps. Use ddim or pndm, or leave out "
            "reference_compat."
        )
    return run.calls


def truncated(window: Window, steps: int) -> range:
    """The authors' window of self-attention: both ends times the number of steps, truncated."""
    return range(int(window.start * steps), int(window.end * steps))


def spans_of(windows: Span | Mapping[str, Span]) -> list[Span]:
    """All windows of a span or mapping; words that a mapping does not name have all steps."""
    if not isinstance(windows, Mapping):
        return [windows]
    return [*windows.values(), *([] if "default" in windows else [1.0])]


def closed(spans: Sequence[Span], run: Run, compat: bool) -> bool:
    """Whether all windows are empty."""
    windows = map(Window.of, spans)
    return not any(truncated(w, run.steps) if compat else w.steps(run.steps) for w in windows)

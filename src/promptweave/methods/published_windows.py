"""Windows of Prompt-to-Prompt's controls; for `reference_compat` those of the authors' code: in network calls, cut off
as floats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from promptweave.core.clock import Span, Window
from promptweave.core.control import Run


def calls(run: Run) -> int:
    """The network's calls in a run, which the authors' code counts in place of steps; raises where it cannot run."""
    if run.calls > run.steps + 1:
        raise ValueError(
            "reference_compat counts network calls as the authors' code does, whose windows end one call after the "
            f"steps. Received a solver of {run.calls} calls in {run.steps} steps. Use ddim or pndm, or leave out "
            "reference_compat."
        )
    return run.calls


def truncated(window: Window, steps: int) -> range:
    """The authors' window of self-attention: both ends times the steps, cut off as floating point has them."""
    return range(int(window.start * steps), int(window.end * steps))


def spans_of(windows: Span | Mapping[str, Span]) -> list[Span]:
    """All windows of cross-attention; words that a mapping does not name have all steps."""
    if not isinstance(windows, Mapping):
        return [windows]
    return [*windows.values(), *([] if "default" in windows else [1.0])]


def closed(spans: Sequence[Span], run: Run, compat: bool) -> bool:
    """Whether none of the windows holds a step."""
    windows = map(Window.of, spans)
    return not any(truncated(w, run.steps) if compat else w.steps(run.steps) for w in windows)

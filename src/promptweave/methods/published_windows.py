"""The windows of the authors' code of Prompt-to-Prompt, for `reference_compat`: in network calls, cut off as floats."""

from __future__ import annotations

from promptweave.core.clock import Window
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

"""Latents that are not finite, traced to their step and cause by a second run that looks at every pass.

The first run looks once, at its end: nothing waits for the device between the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.finite import NotFinite, cure, finite
from promptweave.models.base import Model
from promptweave.sampling.passes import Request, answer
from promptweave.sampling.walk import Progress

Again = Callable[[Progress], Generator[Request, Tensor, Tensor]]


class _Found(Exception):
    """The first values that are not finite."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def not_finite(model: Model, prompts: Sequence[str], z: Tensor, again: Again, steps: range) -> NotFinite:
    """The error for final latents `z` [prompts, images, ...] of which some are not finite.

    `again` repeats their run; `steps`: the indices of its steps, from the first that is not skipped to their number.
    """
    row = next(row for row, latents in enumerate(z) if not finite(latents))
    begin = f"The latents of prompt {row + 1}, {prompts[row]!r}, are not finite (NaN or infinity)"
    return NotFinite(f"{begin} {_traced(model, again, steps)} {cure(model.dtype)}")


def _traced(model: Model, again: Again, steps: range) -> str:
    """Step and cause, as the end of a sentence."""
    at = steps.start

    def look(step: Step, z: Tensor) -> None:
        nonlocal at
        at = step.index
        if not finite(z):
            raise _Found("the solver or a control made them so of finite predictions")
        at += 1

    run = again(look)
    try:
        request = next(run)
        while True:
            _check(request.context, "the text encoder's output is not")
            _check(request.z, "what a control or the noise gave the network is not")
            (output,) = answer(model, [request])
            _check(output, "the network's output is not")
            request = run.send(output)
    except _Found as found:
        return f"from step {at + 1} of {steps.stop} on: {found.cause}."
    except StopIteration:
        return "at the end, though not in a second run: the device is at fault."


def _check(x: Tensor, cause: str) -> None:
    if not finite(x):
        raise _Found(cause)

"""Latents that are not finite, traced to their step and cause by a second run that looks at every pass.

The first run looks once, at its end: nothing waits for the device between the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Hooks
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


def not_finite(
    model: Model, prompts: Sequence[str], z: Tensor, again: Again, steps: range, hooks: Mapping[str, Hooks]
) -> NotFinite:
    """The error for final latents `z` [prompts, images, ...] of which some are not finite.

    `again` repeats their run; `steps`: the indices of its steps, from the first that is not skipped to their number;
    `hooks`: those of the run by the names of their controls.
    """
    row = next(row for row, latents in enumerate(z) if not finite(latents))
    begin = f"The latents of prompt {row + 1}, {prompts[row]!r}, are not finite (NaN or infinity)"
    return NotFinite(f"{begin} {_traced(model, again, steps, hooks)} {cure(model.dtype)}")


def _traced(model: Model, again: Again, steps: range, hooks: Mapping[str, Hooks]) -> str:
    """Step and cause, as the end of a sentence."""
    at = steps.start

    def look(step: Step, z: Tensor) -> None:
        nonlocal at
        at = step.index
        if not finite(z):
            acting = _overriding(hooks, Hooks.prediction, Hooks.after_step)
            raise _Found(f"{' or '.join(['the solver', *acting])} made them so of finite predictions")
        at += 1

    run = again(look)
    try:
        request = next(run)
        while True:
            _check(request.context, "the text encoder's output is not")
            acting = _overriding(hooks, Hooks.before_step)
            _check(request.z, f"what {' or '.join([*acting, 'the starting noise'])} gave the network is not")
            (output,) = answer(model, [request])
            _check(output, "the network's output is not")
            request = run.send(output)
    except _Found as found:
        return f"from step {at + 1} of {steps.stop} on: {found.cause}."
    except StopIteration:
        return "at the end, though not in a second run: the device is at fault."


def _overriding(hooks: Mapping[str, Hooks], *methods: Any) -> list[str]:
    """The names of the hooks that have one of these methods of their own."""
    return [name for name, hook in hooks.items() if any(getattr(type(hook), m.__name__) is not m for m in methods)]


def _check(x: Tensor, cause: str) -> None:
    if not finite(x):
        raise _Found(cause)

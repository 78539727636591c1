"""The steps of a run on the noise levels of a diffusion model, at the times of whatever scheduler it has."""

from __future__ import annotations

from dataclasses import replace

from promptweave.core.clock import Step
from promptweave.core.schedule import Schedule
from promptweave.inversion.inverting import CannotInvert, names
from promptweave.models.base import Model
from promptweave.sampling.loop import FLOW


def timetable(model: Model, count: int, shape: tuple[int, ...]) -> tuple[Schedule, tuple[Step, ...]]:
    """The noise levels, and steps at the times at which the model's own scheduler calls the network.

    Each step ends at the time of the next one, the last in the clean latent (level 1). `shape`: of the latents
    [images, channels, h, w]. Raises CannotInvert for flow models, and for schedulers that call the network several
    times in a step or between two training times.
    """
    if model.scheduler == FLOW:
        raise CannotInvert(
            f"This inversion is for diffusion models, and {model.name} is a flow model. "
            f"Choose another: {', '.join(names(flow=True))}."
        )
    schedule = model.schedule()
    solver = model.solver(count, shape, 1, 0)
    steps = schedule.steps(count) if solver is None else solver.steps
    several = solver is not None and any(len(solver.calls(step)) > 1 for step in steps)
    if several or any(step.t != int(step.t) for step in steps):
        raise CannotInvert(
            "This inversion needs one network call a step, at a whole training time. Received the scheduler "
            f'{model.scheduler!r} with {count} steps. Load the model with another, such as scheduler="ddim" '
            "(--scheduler ddim)."
        )
    times = [int(step.t) for step in steps]
    return replace(schedule, final=1.0), tuple(
        replace(step, t=t, t_next=after) for step, t, after in zip(steps, times, [*times[1:], -1], strict=True)
    )

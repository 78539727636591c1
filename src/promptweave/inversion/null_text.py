"""Null-text inversion (Mokady et al. 2023, arXiv 2211.09794), and null-latent inversion as its ablation.

Guidance leads away from the image. After DDIM inversion without guidance, the unconditional text u is optimised in each
step, so that guided sampling stays on the path z* that the inversion found (section 3.2, algorithm 1):

    for the steps i = 0, 1, ..., from z = z*(0), with u that of the step before:
        `rounds` times:  z' = ddim(z, e(z, u) + w (e(z, c) - e(z, u))),    Adam on u with |z' - z*(i + 1)|^2,
        until the loss is below  tolerance + 2 tolerance i,
        z = ddim(z, ...) with the u that was found.

In the run all rows use these texts; with `source_only` the source does and the targets keep the negative prompt (the
ablation of Ju et al. 2024, arXiv 2310.01506). Null-latent inversion (of the same paper) keeps what u changed in the
source's latents, as an offset of its row in each step, and leaves the texts alone.

Differs from the authors' code: its rate is 0.01 (1 - i / 100) whatever the number of steps, which turns negative above
100; here 0.01 (1 - i / (2 S)), the same at S = 50. The gradient is computed in single precision at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Number, Step
from promptweave.core.control import Control, Hooks, NoEffect, Run, Text
from promptweave.core.fields import Option
from promptweave.core.gradient_memory import GradientMemory
from promptweave.core.schedule import Schedule
from promptweave.inversion.ddim import ddim_path
from promptweave.inversion.inverting import CannotInvert, Inversion, Inverted, Latent, Task
from promptweave.inversion.of_source import OfSource
from promptweave.inversion.unconditional import Unconditional
from promptweave.models.base import Model
from promptweave.sampling.loop import latent_grid
from promptweave.sampling.steps import ddim_step, guide


@dataclass(frozen=True)
class Optimised(Inversion):
    """An inversion that optimises the unconditional text of each step."""

    rounds: Annotated[int, Option("Largest number of optimisation rounds in a step.", low=0)] = 10
    rate: Annotated[Number, Option("Learning rate of the first step.", low=0)] = 0.01
    tolerance: Annotated[Number, Option("Loss at which the first step ends; 0: after all rounds.", low=0)] = 1e-5
    checkpointing: Annotated[bool, Option("Compute activations again instead of keeping them: slower, smaller.")] = (
        False
    )

    def memory(self, model: Model, size: tuple[int, int] | None = None) -> GradientMemory | None:
        count = getattr(model, "gradient_memory", None)
        return None if count is None or not model.guided else count(latent_grid(model, size))

    def passes(self, steps: int) -> int:
        return 2 * steps


@dataclass(frozen=True)
class NullText(Optimised):
    """DDIM inversion, and unconditional texts with which guidance stays on its path (null-text inversion)."""

    name: ClassVar[str] = "null-text"
    about: ClassVar[str] = "The unconditional text of each step is optimised, so that guidance leads back to the image."
    tensors: ClassVar[Mapping[str, int]] = {"uncond": 3}
    source_only: Annotated[bool, Option("Use the texts in the source's row only.")] = False
    pin: Annotated[bool, Option("Also keep the source on the path of its inversion.")] = False

    def find(self, task: Task) -> Inverted:
        check(task)
        path = ddim_path(task)
        texts, loss, rounds = optimised(self, task, path)
        more = {"uncond": texts}
        if task.texts[0].uncond_pooled is not None:
            more["uncond_pooled"] = torch.cat(
                [text.uncond_pooled for text in task.texts if text.uncond_pooled is not None]
            )
        return Inverted(path, self, more, {"loss": loss, "rounds": rounds})

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        rows = (0,) if self.source_only else None
        texts = Unconditional(found.more["uncond"], found.more.get("uncond_pooled"), rows)
        return (*((found.pin,) if self.pin else ()), texts)


@dataclass(frozen=True)
class NullLatent(Optimised):
    """What null-text inversion changes in the source's latents, added to its row in each step (null-latent)."""

    name: ClassVar[str] = "null-latent"
    about: ClassVar[str] = "What the texts of null-text inversion change in the source's latents is added to its row."
    tensors: ClassVar[Mapping[str, int]] = {"offsets": 5}

    def find(self, task: Task) -> Inverted:
        check(task)
        path, offsets = ddim_path(task), list[Tensor]()

        def compare(step: Step, z: Latent, moved: Latent) -> None:
            plain = task.predict(z, step, task.guidance)
            schedule = task.schedule()
            levels = schedule.level(step.t), schedule.level(step.t_next)
            offsets.append(moved - ddim_step(plain, z, *levels, schedule.prediction))

        _, loss, rounds = optimised(self, task, path, compare)
        return Inverted(path, self, {"offsets": torch.stack(offsets)}, {"loss": loss, "rounds": rounds})

    def controls(self, found: Inverted) -> tuple[Control, ...]:
        return (Offset(found.more["offsets"]),)


@dataclass(frozen=True, eq=False)
class Offset(OfSource):
    """`offsets` [steps, images, channels, height, width] are added to row 0, one after each step."""

    offsets: Float[Tensor, "steps images channels height width"]

    def bind(self, run: Run) -> Hooks:
        if len(self.offsets) != run.steps:
            raise ValueError(
                f"Offsets are those of a run of {len(self.offsets)} steps. Received one of {run.steps}. Invert with "
                "the run's steps."
            )
        return Hooks() if run.recorded else _Adding(self.offsets)


class _Adding(Hooks):
    def __init__(self, offsets: Tensor) -> None:
        self.offsets = offsets

    def after_step(self, step: Step, z: Tensor) -> Tensor:
        return torch.cat([z[:1] + self.offsets[step.index].to(z)[None], z[1:]])


def check(task: Task) -> None:
    """Raise CannotInvert for a run in which the unconditional text has no effect, NoEffect for one without guidance."""
    task.schedule()
    if not task.model.guided:
        raise CannotInvert(
            f"Null-text inversion optimises the unconditional text, and {task.model.name} takes guidance as an input "
            "and has none. Choose another inversion."
        )
    if task.guidance == 1:
        raise NoEffect(
            "Null-text inversion undoes what guidance changes, and guidance 1 changes nothing. Choose a guidance above "
            "1, or another inversion (ddim, direct)."
        )
    if len(task.latents) != 1:
        raise CannotInvert(f"Null-text inversion takes one image at a time. Received {len(task.latents)}.")


Seen = Callable[[Step, Latent, Latent], None]


def optimised(
    options: Optimised, task: Task, path: tuple[Latent, ...], seen: Seen | None = None
) -> tuple[Float[Tensor, "steps tokens dim"], float, int]:
    """The texts of all steps, the last loss and the number of rounds. `seen` gets each step's latents, before and
    after."""
    schedule, steps = task.schedule(), task.steps_of_run
    z, u = path[0], task.texts[0].uncond
    u = u.float() if u.dtype.itemsize < 4 else u
    texts, total, last = list[Tensor](), 0, 0.0
    with torch.no_grad(), checkpointed(task.model, on=options.checkpointing):
        for step in steps:
            goal, cond = path[step.index + 1], task.predict(z, step)
            rate = options.rate * (1 - step.index / (2 * len(steps)))
            limit = options.tolerance * (1 + 2 * step.index)

            def moved(u: Tensor, z: Latent = z, step: Step = step, cond: Latent = cond) -> Latent:
                uncond = task.predict(z, step, text=_as_text(task.texts[step.index], u))
                return _step(guide(uncond, cond, task.guidance), z, step, schedule)

            u, last, rounds = _round(moved, u, goal, options.rounds, rate, limit)
            total += rounds
            texts.append(u)
            after = moved(u)
            if seen:
                seen(step, z, after)
            z = after
            task.tell(step, z)
    return torch.cat(texts), last, total


def _round(
    moved: Callable[[Tensor], Latent], u: Tensor, goal: Latent, rounds: int, rate: Number, limit: Number
) -> tuple[Tensor, float, int]:
    """A step's text, its last loss, and the rounds that it took."""
    u = u.detach().clone().requires_grad_()
    adam, last = torch.optim.Adam([u], lr=rate), 0.0
    for count in range(rounds):
        with torch.enable_grad():
            loss = (moved(u) - goal).square().mean()
            (u.grad,) = torch.autograd.grad(loss, u)
        adam.step()
        last = float(loss.detach())
        if last < limit:
            return u.detach(), last, count + 1
    return u.detach(), last, rounds


def _as_text(text: Text, u: Tensor) -> Text:
    """A text whose conditional half is the unconditional one."""
    return Text(u.to(text.uncond.dtype), text.uncond, text.uncond_pooled, text.uncond_pooled)


def _step(output: Latent, z: Latent, step: Step, schedule: Schedule) -> Latent:
    return ddim_step(output, z, schedule.level(step.t), schedule.level(step.t_next), schedule.prediction)


@contextmanager
def checkpointed(model: Any, *, on: bool) -> Iterator[None]:
    """Gradient checkpointing of the model's network, for as long as the context lasts."""
    network = getattr(model, "network", None)
    if not on or network is None or network.is_gradient_checkpointing:
        yield
        return
    network.enable_gradient_checkpointing()
    try:
        yield
    finally:
        network.disable_gradient_checkpointing()

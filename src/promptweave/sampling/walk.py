"""One run as a generator that asks for forward passes, and a driver that answers several runs with one pass."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Hooks, Text
from promptweave.core.rows import Branch, Layout
from promptweave.models.base import Model, Solver
from promptweave.sampling.passes import Pass, Request, Source, answer
from promptweave.sampling.probe import Prober
from promptweave.sampling.steps import guide

Progress = Callable[[Step, Tensor], None]


def branches(model: Model, guidance: int | float, strength: Tensor | None = None) -> tuple[Branch, ...]:
    """Both halves for classifier-free guidance, one where it is off or an input of the network.

    `strength` [prompts]: what controls have made of it for each prompt; one that is guided needs both halves.
    """
    on = guidance != 1 or (strength is not None and bool((strength != 1).any()))
    return ("uncond", "cond") if model.guided and on else ("cond",)


def walk(
    model: Model,
    solver: Solver,
    text: Text,
    z: Tensor,
    guidance: int | float,
    hooks: Sequence[Hooks],
    *,
    source: Source | None = None,
    progress: Progress | None = None,
) -> Generator[Request, Tensor, Tensor]:
    """A run from noise [images, ...] to latents [prompts, images, ...]; a recorded source takes the place of row 0."""
    count, first = len(text.keys), 0 if source is None else 1
    layout = Layout(branches(model, guidance), count, len(z), first)
    z = solver.start(z).expand(count, *z.shape)
    begin = max((hook.first_step for hook in hooks), default=0)
    steered = any(type(hook).strength is not Hooks.strength for hook in hooks)
    asked = sum(len(solver.calls(step)) for step in solver.steps[:begin])
    for step in solver.steps[begin:]:
        step = replace(step, call=asked)
        strength = torch.full((count,), float(guidance), device=z.device)
        for hook in hooks:
            strength = hook.strength(step, strength)
        layout = replace(layout, branches=branches(model, guidance, strength if steered else None))
        conditioned = text
        for index, hook in enumerate(hooks):
            conditioned = hook.condition(step, conditioned)
            here = Pass(model, step, conditioned, strength, hooks[:index], layout, source)
            z = hook.before_step(step, z, Prober(here, solver))
        before = z
        moving = z[first:]
        for call, t in enumerate(solver.calls(step)):
            step, asked = replace(step, call=asked), asked + 1
            here = Pass(model, step, conditioned, strength, hooks, layout, source, call)
            output = yield here.request(solver.scale(moving, t), t)
            output = output.unflatten(0, (len(layout.branches), *moving.shape[:2]))
            if len(layout.branches) == 2:
                uncond = output[0]
                output = guide(uncond, output[1], strength[first:].to(output.dtype).view(-1, 1, 1, 1, 1))
            else:
                uncond, output = None, output[0]
            for hook in hooks:
                output = hook.prediction(step, output, uncond)
            moving = solver.advance(output.flatten(0, 1), moving.flatten(0, 1), t).unflatten(0, moving.shape[:2])
        z = moving if source is None else torch.cat([source.latents(step.index + 1).to(before)[None], moving])
        for hook in hooks:
            z = hook.after_step(step, z)
        if progress:
            progress(step, z)
    return z


def drive(model: Model, runs: Sequence[Generator[Request, Tensor, Tensor]]) -> list[Tensor]:
    """Drive runs to their ends; those whose latents have the same shape share every forward pass."""
    results: dict[int, Tensor] = {}
    waiting = {number: next(run) for number, run in enumerate(runs)}
    while waiting:
        groups: dict[tuple[Any, ...], list[int]] = {}
        for number, request in waiting.items():
            shape = (request.z.shape[1:], request.context.shape[1:], request.pooled is None)
            groups.setdefault(shape, []).append(number)
        for numbers in groups.values():
            outputs = answer(model, [waiting[number] for number in numbers])
            for number, output in zip(numbers, outputs, strict=True):
                try:
                    waiting[number] = runs[number].send(output)
                except StopIteration as end:
                    del waiting[number]
                    results[number] = end.value
    return [results[number] for number in range(len(runs))]

"""A run as a generator that asks for forward passes, and a driver that answers several runs with one pass."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Step
from promptweave.core.control import Extra, Hooks, Predictions, Text
from promptweave.core.memory import Memory
from promptweave.core.rows import Branch, Layout
from promptweave.models.base import Model, Solver
from promptweave.sampling.beside import Company
from promptweave.sampling.passes import Pass, Request, Source, answer
from promptweave.sampling.probe import Look, Prober
from promptweave.sampling.steps import guide

Progress = Callable[[Step, Tensor], None]


def branches(model: Model, guidance: int | float, scales: Sequence[float] | None = None) -> tuple[Branch, ...]:
    """Both halves for classifier-free guidance; the conditional one if it is off or an input of the network.

    `scales`: the guidance of each prompt after the controls, which then decides; both halves are needed if one is
    guided.
    """
    on = guidance != 1 if scales is None else any(scale != 1 for scale in scales)
    return ("uncond", "cond") if model.guided and on else ("cond",)


def walk(
    model: Model,
    solver: Solver,
    texts: Sequence[Text],
    z: Tensor,
    guidance: int | float,
    hooks: Sequence[Hooks],
    *,
    source: Source | None = None,
    progress: Progress | None = None,
) -> Generator[Request, Tensor, Tensor]:
    """A run from noise [images, ...] to latents [prompts, images, ...]; a recorded source takes the place of row 0.

    `texts`: the encoded prompts at each step.
    """
    count, first = len(texts[0].cond), 0 if source is None else 1
    layout = Layout(branches(model, guidance), count, len(z), first)
    z = solver.start(z).expand(count, *z.shape)
    begin = max((hook.first_step for hook in hooks), default=0)
    steered = any(type(hook).strength is not Hooks.strength for hook in hooks)
    before_each = [0, *accumulate(len(solver.calls(step)) for step in solver.steps)]
    memory, order, channels = Memory(), solver.steps[begin:], None
    strengths: dict[tuple[float, ...], Tensor] = {}  # the guidance of each prompt, on the device
    for hook in hooks:
        order = hook.visits(order)
        channels = hook.channels() if channels is None else channels
    for step in order:
        asked = before_each[step.index]
        step = replace(step, call=asked)
        scales = _scales(step, hooks, guidance, count, z.dtype) if steered else (float(guidance),) * count
        if scales not in strengths:
            strengths[scales] = torch.tensor(scales, device=z.device, dtype=z.dtype)
        strength = strengths[scales]
        layout = replace(layout, branches=branches(model, guidance, scales if steered else None))
        conditioned = texts[step.index]
        for index, hook in enumerate(hooks):
            conditioned = hook.condition(step, conditioned)
            here = Pass(model, step, conditioned, strength, hooks[:index], layout, source, channels=channels)
            z = hook.before_step(step, z, Prober(here, solver))
        before = z
        moving = z[first:]
        wanted = {(i, name): extra for i, hook in enumerate(hooks) for name, extra in hook.extras(step).items()}
        for call, t in enumerate(solver.calls(step)):
            step, asked = replace(step, call=asked), asked + 1
            here = Pass(
                model, step, conditioned, strength, hooks, layout, source, call, memory=memory, channels=channels
            )
            looks = {key: _look(extra, range(first, count)) for key, extra in wanted.items()}
            others = [here.of(*key, _scaled(extra, solver, t), looks[key]) for key, extra in wanted.items()]
            output = yield here.request(solver.scale(moving, t), t, others)
            output = output.unflatten(0, (len(others) + len(layout.branches), *moving.shape[:2]))
            found = dict(zip(wanted, output, strict=False))
            seen = {key: look.maps for key, look in looks.items() if look is not None}
            output = _predicted(hooks, step, output[len(others) :], strength[first:], found, seen, moving, call)
            moving = solver.advance(output.flatten(0, 1), moving.flatten(0, 1), t).unflatten(0, moving.shape[:2])
        z = moving if source is None else torch.cat([source.latents(step.index + 1).to(before)[None], moving])
        for hook in hooks:
            z = hook.after_step(step, z)
        if progress:
            progress(step, z)
    return z


def _scales(
    step: Step, hooks: Sequence[Hooks], guidance: int | float, count: int, dtype: torch.dtype
) -> tuple[float, ...]:
    """The guidance of each prompt after the controls."""
    strength = torch.full((count,), float(guidance), dtype=dtype)
    for hook in hooks:
        strength = hook.strength(step, strength)
    return tuple(strength.tolist())


def _predicted(
    hooks: Sequence[Hooks],
    step: Step,
    output: Tensor,
    strength: Tensor,
    extra: Mapping[tuple[int, str], Tensor],
    maps: Mapping[tuple[int, str], Maps],
    latents: Tensor,
    call: int,
) -> Tensor:
    """The prediction after guidance and the controls, each of which sees the extra predictions that it asked for."""
    cond, uncond = output[-1], output[0] if len(output) == 2 else None
    guided = cond if uncond is None else guide(uncond, cond, strength.to(output.dtype).view(-1, 1, 1, 1, 1))
    for index, hook in enumerate(hooks):
        if type(hook).prediction is Hooks.prediction:
            continue
        mine = {name: found for (owner, name), found in extra.items() if owner == index}
        seen = {name: found for (owner, name), found in maps.items() if owner == index}
        guided = hook.prediction(step, Predictions(cond, uncond, guided, mine, seen, latents, call))
    return guided


def _look(extra: Extra, prompts: range) -> Look | None:
    """The reader of the maps that an extra prediction is asked for, if any."""
    return None if extra.sites is None else Look(Maps(extra.sites, tuple(prompts)), "")


def _scaled(extra: Extra, solver: Solver, t: int | float) -> Extra:
    return extra if extra.latents is None else replace(extra, latents=solver.scale(extra.latents, t))


def drive(
    model: Model, runs: Sequence[Generator[Request, Tensor, Tensor]], company: Sequence[Company] = ()
) -> list[Tensor]:
    """Drive runs to their ends. Runs with latents and texts of the same shape share every forward pass.

    `company`: notes for each run what stands beside it, or says what to put there.
    """
    company = company or [Company() for _ in runs]
    results: dict[int, Tensor] = {}
    waiting = {number: next(run) for number, run in enumerate(runs)}
    while waiting:
        results |= answered(model, runs, waiting, list(waiting), company)
    return [results[number] for number in range(len(runs))]


def answered(
    model: Model,
    runs: Sequence[Generator[Request, Tensor, Tensor]],
    waiting: dict[int, Request],
    numbers: Sequence[int],
    company: Sequence[Company],
) -> dict[int, Tensor]:
    """Answer the requests of some of the runs, which then wait for the next answer; the latents of those that end."""
    ended: dict[int, Tensor] = {}
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number in numbers:
        request = waiting[number]
        alone = number if company[number].given else None
        shape = (request.z.shape[1:], request.context.shape[1:], request.pooled is None, alone)
        groups.setdefault(shape, []).append(number)
    for together in groups.values():
        requests, first = [waiting[number] for number in together], 0
        if company[together[0]].given:
            requests, first = company[together[0]].with_others(*requests)
        for place, number in enumerate(together, first):
            company[number].note(requests, place)
        outputs = answer(model, requests)[first : first + len(together)]
        for number, output in zip(together, outputs, strict=True):
            try:
                waiting[number] = runs[number].send(output)
            except StopIteration as end:
                del waiting[number]
                ended[number] = end.value
    return ended

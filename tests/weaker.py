"""What the tests of PAG and SEG share: predictions that are watched, and the equation with whole matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from promptweave import Control, Hooks, noise_for, sample
from promptweave.core.control import Predictions
from promptweave.core.pattern import Dense, Pattern, Term
from promptweave.core.rows import Layout, Rows
from promptweave.core.tapping import Tap
from promptweave.sampling.loop import Job

PROMPT, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@dataclass(frozen=True)
class Watch(Control):
    """Keeps the predictions that reach it."""

    def bind(self, run: Any) -> Hooks:
        return Watching()


@dataclass
class Watching(Hooks):
    seen: list[Predictions] = field(default_factory=list)

    def prediction(self, step: Any, made: Predictions) -> Tensor:
        self.seen.append(made)
        return made.guided


def made(model, *controls, prompts=(PROMPT,), steps=3, images=1, guidance=3.0):
    noise = noise_for(model, 0, images).to(model.dtype)
    return sample(model, list(prompts), noise=noise, steps=steps, guidance=guidance, controls=list(controls))


def dense_edit(names: list[str], scores_of: Callable[[Any, Tensor, Tensor], Tensor]) -> Callable[[Any, Rows], Rows]:
    """An edit that puts softmax(scores) into the layers of those names, as whole matrices."""

    def edit(site: Any, rows: Rows) -> Rows:
        for prompt in range(len(rows["cond"])) if site.name in names else ():
            row = rows["cond"][prompt]
            scores = scores_of(site, row.q, row.k)
            rows = rows.put("cond", prompt, pattern=Pattern((Term(Dense(scores.softmax(-1))),)))
        return rows

    return edit


def check_equation(model, control, scale: float, scores_of, monkeypatch, steps: int = 2) -> list[str]:
    """e <- e_guided + scale (e_c - e_w) at every call of the network, e_w by a pass of its own; gives the layers."""
    inputs: list[tuple[Tensor, Any]] = []
    predict = type(model).predict

    def logged(self, z, t, *rest, **options):
        inputs.append((z, t))
        return predict(self, z, t, *rest, **options)

    prompts, images = (PROMPT, TARGET), 2
    monkeypatch.setattr(type(model), "predict", logged)
    run = made(model, Watch(), control, Watch(), prompts=prompts, images=images, steps=steps)
    monkeypatch.undo()
    names = run.hooks[1].report()["layers"]
    text = model.encode(list(prompts), ["", ""])
    context = text.cond.repeat_interleave(images, 0)
    pooled = None if text.pooled is None else text.pooled.repeat_interleave(images, 0)
    tap = Tap.of(Layout(("cond",), len(prompts), images), dense_edit(names, scores_of))
    assert len(inputs) == len(run.hooks[0].seen) == len(run.hooks[2].seen) >= steps
    for (z, t), before, after in zip(inputs, run.hooks[0].seen, run.hooks[2].seen, strict=True):
        z = z[-len(prompts) * images :]
        weak = model.predict(z, t, context, tap, pooled=pooled, guidance=3.0).unflatten(0, (len(prompts), images))
        wanted = before.guided + scale * (before.cond - weak)
        torch.testing.assert_close(after.guided, wanted, **CLOSE)
        assert (after.guided - before.guided).abs().max() > 1e-4
    return names


def guided_by(guider: Any, model) -> Tensor:
    """The prediction of diffusers' guider at the first step of a run of one: a pass for each of its three inputs."""
    noise = noise_for(model, 0).to(model.dtype)
    text = model.encode([PROMPT], [""])
    t = Job((PROMPT,), noise, 1).solver(model).steps[0].t
    found: list[Tensor] = []
    guider.set_state(1, 2, t)  # their windows begin after the first step
    for number, context in enumerate((text.cond, text.uncond, text.cond), 1):
        guider.prepare_models(model.unet)
        if guider._count_prepared < number:  # SEG's does not count, and so would never act
            guider._count_prepared = number
            guider.prepare_models(model.unet)
        with torch.no_grad():
            found.append(model.unet(noise, t, context).sample)
        guider.cleanup_models(model.unet)
    return guider.forward(*found).pred

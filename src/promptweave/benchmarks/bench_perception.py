"""Perception on unseen scenes of the embedded world: the features of VPD against what they are compared with.

Every run trains on the same scenes for as many steps, with its own seed, and is measured on scenes that none has seen.
"no maps": the same head without attention maps. "random UNet": the same, with random weights in the network.
"pixels": a small convolutional network of equal size (as many weights as adapter and head), with levels at strides of
4, 8, 16 and 32 pixels and a head of the same kind; a phrase enters as scales and shifts of its levels. "arg-max": no
training; each pixel gets the class whose map, over its mean, is largest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptweave.models.quiet import quiet
from promptweave.perception.batches import fitted, kept_features, stacked
from promptweave.perception.heads import convolved, parameters
from promptweave.perception.learning import learn
from promptweave.perception.lessons import Lessons, indices, thinned
from promptweave.perception.perceiver import Perceiver
from promptweave.perception.recipes import world_plan
from promptweave.perception.samples import Examples
from promptweave.perception.scenes import UNSEEN, Scenes
from promptweave.perception.tasks import Plan

VARIANTS = ("features and maps", "no maps", "random UNet", "pixels", "arg-max")
STEM = 16  # channels of the pixels' first convolution
BATCH = 32
SCENES, STEPS = 600, 500  # a fifth of what the shipped heads learned from: what helps those who have few labels?
Figures = dict[str, float]


def few_lessons(task: str, seed: int = 0) -> Lessons:
    """The lessons of every variant."""
    return Lessons(steps=STEPS, seed=seed)


def bench_perception(
    model: Any,
    tasks: Sequence[str],
    *,
    variants: Sequence[str] = VARIANTS,
    seeds: Sequence[int] = (0, 1, 2),
    scenes: int = SCENES,
    unseen: int = 400,
    lessons: Callable[[str, int], Lessons] = few_lessons,
    progress: Callable[[], None] | None = None,
) -> dict[str, dict[str, list[Figures]]]:
    """Figures on unseen scenes by task and variant, one dictionary for each seed."""
    unknown = set(variants) - set(VARIANTS)
    if unknown:
        raise ValueError(f"Variants are {', '.join(VARIANTS)}. Received {', '.join(sorted(unknown))}.")
    found: dict[str, dict[str, list[Figures]]] = {}
    for task in tasks:
        test = Scenes(task, unseen, UNSEEN)
        for seed in seeds:
            train = Scenes(task, scenes, seed)
            for variant in variants:
                if variant == "arg-max" and task != "segment":
                    continue
                figures = one(model, variant, train, test, lessons(task, seed))
                found.setdefault(task, {}).setdefault(variant, []).append(figures)
                if progress:
                    progress()
    return found


def spread(values: Sequence[float]) -> str:
    """Mean and range of a figure over seeds."""
    mean = sum(values) / len(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})"


def one(model: Any, variant: str, train: Scenes, test: Scenes, lessons: Lessons) -> Figures:
    """The figures of one variant."""
    with torch.random.fork_rng():
        torch.manual_seed(lessons.seed)
        plan = world_plan(train.task, maps=variant != "no maps")
        perceiver = Perceiver(randomised(model) if variant == "random UNet" else model, plan)
        if variant == "arg-max":
            return measured(plan, test, lambda begin, end: largest_maps(perceiver, test, begin, end))
        if variant == "pixels":
            return by_pixels(perceiver, train, test, lessons)
    learn(perceiver, train, lessons)
    return judged(perceiver, test)


def judged(perceiver: Perceiver, test: Examples) -> Figures:
    """The figures of a trained perceiver on samples of its size, without windows and mirror images."""
    levels, targets = kept_features(perceiver, test)
    perceiver.eval()

    def answers(begin: int, end: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            inputs = [x[begin:end].to(perceiver.extractor.model.device).float() for x in levels]
            return perceiver.head(inputs), targets[begin:end]

    return measured(perceiver.plan, test, answers)


def measured(plan: Plan, test: Examples, outputs: Callable[[int, int], tuple[Tensor, Tensor]]) -> Figures:
    """The figures of outputs, batch by batch."""
    measure = plan.measure()
    for begin in range(0, len(test), BATCH):
        output, targets = outputs(begin, min(len(test), begin + BATCH))
        whole = F.interpolate(output, targets.shape[1:], mode="bilinear", align_corners=plan.task == "refer")
        for answer, target in zip(plan.answer(whole).cpu().numpy(), targets.cpu().numpy(), strict=True):
            measure.add(answer, target)
    return measure.figures()


def randomised(model: Any) -> Any:
    """The model with fresh weights in its network, drawn from torch's generator."""
    pipeline = copy.copy(model.pipeline)
    with quiet():
        pipeline.unet = type(model.network).from_config(model.network.config).to(model.device, model.dtype)
    return type(model)(pipeline, model.name)


@torch.no_grad()
def largest_maps(perceiver: Perceiver, test: Examples, begin: int, end: int) -> tuple[Tensor, Tensor]:
    """Maps of the classes over their means, summed over grids [n, classes, height, width], and the answers."""
    samples = [fitted(test[i], perceiver.plan.size) for i in range(begin, end)]
    pictures, targets = stacked(samples, perceiver.extractor.model.device)
    extractor = perceiver.extractor
    seen = extractor.see(extractor.latents(pictures), perceiver.context(len(samples)))
    total: Any = 0
    for map in seen.maps:
        if map is not None:
            share = map[:, : perceiver.plan.vectors] / map[:, : perceiver.plan.vectors].mean((2, 3), keepdim=True)
            total = total + F.interpolate(share.float(), targets.shape[1:], mode="bilinear")
    return total, targets


class PixelNet(nn.Module):
    """Levels of convolutions on pixels and a head; the mean state of a phrase scales and shifts the levels."""

    def __init__(self, plan: Plan, dim: int, width: int) -> None:
        super().__init__()
        counts = [STEM, 2 * STEM, 4 * STEM, 4 * STEM, 4 * STEM]
        self.stages = nn.ModuleList()
        for place, count in enumerate(counts):
            before = counts[place - 1] if place else 3
            first = nn.Conv2d(before, count, 3, 2, 1, bias=False)
            self.stages.append(nn.Sequential(first, nn.BatchNorm2d(count), nn.ReLU(), convolved(count, count)))
        self.told = nn.ModuleList([nn.Linear(dim, 2 * count) for count in counts]) if plan.task == "refer" else None
        self.head = _with_width(plan, width).head(counts[1:])

    def forward(self, x: Tensor, text: Tensor | None) -> Tensor:
        levels: list[Tensor] = []
        for place, stage in enumerate(self.stages):
            x = stage(x)
            if self.told is not None and text is not None:
                scale, shift = self.told[place](text)[..., None, None].chunk(2, 1)
                x = x * (1 + scale) + shift
            levels.append(x)
        return self.head(levels[1:])


def _with_width(plan: Plan, width: int) -> Plan:
    from dataclasses import replace

    return replace(plan, width=width)


def pixel_net(perceiver: Perceiver) -> PixelNet:
    """The network on pixels with the largest head that keeps it within the size of adapter and head."""
    most = parameters(perceiver.adapter) + parameters(perceiver.head)
    step = 16 if perceiver.plan.task == "depth" else 4
    widths = range(step, 161, step)
    fits = [w for w in widths if parameters(PixelNet(perceiver.plan, perceiver.extractor.dim, w)) <= most]
    return PixelNet(perceiver.plan, perceiver.extractor.dim, max(fits))


def by_pixels(perceiver: Perceiver, train: Scenes, test: Scenes, lessons: Lessons) -> Figures:
    """Train the network on pixels with the same examples, steps and rates, and measure it."""
    device, plan = perceiver.extractor.model.device, perceiver.plan
    net = pixel_net(perceiver).to(device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=lessons.rate, weight_decay=lessons.decay)

    def read(examples: Scenes) -> tuple[Tensor, Tensor, Tensor | None]:
        samples = [examples[i] for i in range(len(examples))]
        pictures = torch.from_numpy(np.stack([s.picture for s in samples])).permute(0, 3, 1, 2)
        targets = torch.from_numpy(np.stack([s.target for s in samples]))
        if plan.task != "refer":
            return pictures, targets, None
        parts = [[s.phrase or "" for s in samples[i : i + 256]] for i in range(0, len(samples), 256)]
        return pictures, targets, torch.cat([perceiver.context(len(p), p).mean(1).cpu() for p in parts])

    def output(data: tuple[Tensor, Tensor, Tensor | None], rows: Any) -> Tensor:
        text = None if data[2] is None else data[2][rows].to(device)
        return net(data[0][rows].to(device).float() / 127.5 - 1, text)

    seen = read(train)
    for step in range(lessons.total):
        for group in optimiser.param_groups:
            group["lr"] = lessons.rate * lessons.factor(step)
        rows = indices(lessons, step, lessons.batch, len(train))
        optimiser.zero_grad()
        plan.loss(output(seen, rows), thinned(seen[1][rows], lessons.every, step).to(device)).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    net.eval()
    unseen = read(test)

    def answers(begin: int, end: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return output(unseen, slice(begin, end)), unseen[1][begin:end]

    return measured(plan, test, answers)

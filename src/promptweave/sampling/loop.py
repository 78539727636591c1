"""The sampling loop: many prompts from the same noise, under controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.clock import Step
from promptweave.core.control import Control, Hooks, Run, Text
from promptweave.core.maps import Maps
from promptweave.core.rows import Layout, Rows
from promptweave.core.site import Site, Sites
from promptweave.models.base import Model, Tap
from promptweave.sampling.steps import ddim_step, guide

Progress = Callable[[Step, Tensor], None]


@dataclass(frozen=True, eq=False)
class Sample:
    """What a run made: latents [prompts, images, channels, h, w], pictures uint8 [prompts, images, h, w, 3]."""

    latents: Tensor
    pictures: np.ndarray
    run: Run
    hooks: tuple[Hooks, ...]

    @property
    def reports(self) -> tuple[dict[str, Any], ...]:
        """What each control says of its run."""
        return tuple(hooks.report() for hooks in self.hooks)


def latent_grid(model: Model, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Height and width of the latent of a picture of `size` (height, width) pixels."""
    height, width = size or model.default_size
    if height % model.factor or width % model.factor or height <= 0 or width <= 0:
        raise ValueError(
            f"Height and width must be positive multiples of {model.factor}, the factor of this model's autoencoder. "
            f"Received {height} x {width}; {_near(height, model.factor)} x {_near(width, model.factor)} would do."
        )
    return height // model.factor, width // model.factor


def _near(side: int, factor: int) -> int:
    return max(factor, round(side / factor) * factor)


def noise_for(
    model: Model, seed: int, images: int = 1, size: tuple[int, int] | None = None
) -> Float[Tensor, "images channels h w"]:
    """Starting noise: image i is drawn on the CPU with a generator of its own, seeded with seed + i."""
    shape = (1, model.channels, *latent_grid(model, size))
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed + i)) for i in range(images)]
    return torch.cat(draws)


def bind(
    model: Model,
    prompts: Sequence[str],
    *,
    grid: tuple[int, int],
    images: int,
    steps: int,
    guidance: int | float,
    controls: Sequence[Control],
) -> tuple[Run, tuple[Hooks, ...]]:
    """Check everything that can be checked before the first step."""
    if not prompts:
        raise ValueError("A run needs at least one prompt. Received none.")
    if isinstance(guidance, bool) or not math.isfinite(guidance):
        raise ValueError(f"guidance must be a finite number (7.5 is usual, 1 switches it off). Received {guidance}.")
    model.schedule.steps(steps)
    words = tuple(model.words(prompt) for prompt in prompts)
    run = Run(
        tuple(prompts),
        words,
        steps,
        model.sites(grid),
        grid,
        model.map_grid(grid),
        images,
        guidance,
        words[0].limit,
        model.device,
        model.dtype,
    )
    return run, tuple(control.bind(run) for control in controls)


@torch.no_grad()
def sample(
    model: Model,
    prompts: Sequence[str],
    *,
    noise: Float[Tensor, "images channels h w"],
    steps: int = 50,
    guidance: int | float = 7.5,
    controls: Sequence[Control] = (),
    negative: str = "",
    progress: Progress | None = None,
) -> Sample:
    """Generate a picture per prompt and noise. Controls see row 0 as the source, the others as targets.

    `noise` is shared by all prompts. Guidance leads away from `negative`. `progress` is called after every step with
    the latents. Sampling is deterministic (DDIM, eta = 0).
    """
    if noise.ndim != 4 or noise.shape[1] != model.channels or not noise.numel():
        raise ValueError(
            f"noise must be [images, {model.channels}, h, w] with at least one image for this model. "
            f"Received {tuple(noise.shape)}. Draw it with noise_for(model, seed)."
        )
    grid = (noise.shape[-2], noise.shape[-1])
    run, hooks = bind(model, prompts, grid=grid, images=len(noise), steps=steps, guidance=guidance, controls=controls)
    text = model.encode(prompts, [negative] * len(prompts))
    schedule = model.schedule
    precision = torch.promote_types(noise.dtype, torch.float32)  # of the latents, whatever the network computes in
    z = noise.to(model.device, precision).expand(len(prompts), *noise.shape)
    for step in schedule.steps(steps):
        for index, hook in enumerate(hooks):
            z = hook.before_step(step, z, _prober(model, text, step, hooks[:index]))
        conditioned = text
        for hook in hooks:
            conditioned = hook.condition(step, conditioned)
        output = predict(model, z, step, conditioned, guidance, hooks)
        z = ddim_step(output, z, schedule.level(step.t), schedule.level(step.t_next), schedule.prediction)
        for hook in hooks:
            z = hook.after_step(step, z)
        if progress:
            progress(step, z)
    return Sample(z, decode(model, z), run, hooks)


def predict(model: Model, z: Tensor, step: Step, text: Text, guidance: int | float, hooks: Sequence[Hooks]) -> Tensor:
    """The guided output of the network for every prompt and image, under the hooks."""
    layout = Layout(("uncond", "cond") if guidance != 1 else ("cond",), z.shape[0], z.shape[1])
    output = _forward(model, z, step, text, layout, hooks).unflatten(0, (len(layout.branches), *z.shape[:2]))
    return guide(output[0], output[1], guidance) if len(layout.branches) == 2 else output[0]


def _forward(model: Model, z: Tensor, step: Step, text: Text, layout: Layout, hooks: Sequence[Hooks]) -> Tensor:
    def edit(site: Site, rows: Rows) -> Rows:
        for hook in hooks:
            rows = hook.attention(step, site, rows)
        return rows

    def contexts(cond: Tensor) -> Tensor:
        stacked = torch.cat([text.uncond, cond]) if len(layout.branches) == 2 else cond
        return stacked.repeat_interleave(layout.images, 0)

    values = None if text.values is text.keys else contexts(text.values)
    tap = Tap(layout, edit, values) if hooks or values is not None else None
    batch = z.flatten(0, 1).repeat(len(layout.branches), 1, 1, 1)
    return model.predict(batch, step.t, contexts(text.keys), tap)


def _prober(model: Model, text: Text, step: Step, hooks: Sequence[Hooks]) -> Callable[[Tensor, Sites], Maps]:
    def probe(z: Tensor, sites: Sites) -> Maps:
        """One conditional pass under the controls to the left; the maps keep their gradient to `z`."""
        maps = Maps(sites, tuple(range(z.shape[0])))

        class Look(Hooks):
            def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
                maps.add(step, site, rows)
                return rows

        with torch.enable_grad():
            _forward(model, z, step, text, Layout(("cond",), z.shape[0], z.shape[1]), (*hooks, Look()))
        return maps

    return probe


def decode(model: Model, z: Tensor) -> np.ndarray:
    """Pictures of latents [prompts, images, ...], uint8 [prompts, images, height, width, 3]; one latent at a time."""
    pictures = torch.cat([model.to_image(part) for part in z.flatten(0, 1).split(1)])
    return (pictures * 255).round().to(torch.uint8).unflatten(0, z.shape[:2]).numpy()

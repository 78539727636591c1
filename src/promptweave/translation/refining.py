"""Sharp images from blurred latents: the last steps of a diffusion model, without a prompt.

A short code cannot say every detail, and a decoder trained with a squared error gives the mean of what the code
leaves open: it blurs. SDEdit (Meng et al. 2021, arXiv:2108.01073) makes such latents likely again: noise covers the
blur, and is removed by a model that knows what images look like. Every image gets the same noise, so equal codes give
equal images, and what two codes share stays shared.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.models.embedded import FAST
from promptweave.models.load import load_cached
from promptweave.sampling.solver import Ddim

Latents = Float[Tensor, "batch channels height width"]
STEPS, BEGIN = 8, 5  # steps of toybox-fast, and the first that is made: noise 0.56, signal 0.83
BATCH = 16


class Refiner:
    """The last steps of toybox-fast from latents; its text is that of an empty prompt."""

    @cached_property
    def model(self) -> Any:
        """toybox-fast, loaded when it is first needed."""
        return load_cached(FAST)

    @cached_property
    def text(self) -> Tensor:
        """The encoded empty prompt."""
        return self.model.encode(["a"], [""]).uncond

    @torch.no_grad()
    def __call__(self, latents: Latents) -> Latents:
        """Latents with the details that they lack, on the CPU."""
        return torch.cat([self._refined(part) for part in latents.split(BATCH)])

    def _refined(self, latents: Latents) -> Latents:
        model, solver = self.model, Ddim(self.model.schedule(), STEPS)
        steps = solver.steps[BEGIN:]
        noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(0))
        signal, share = solver.shares(steps[0].t)
        z = (signal * latents.float().cpu() + share * noise).to(model.device)
        context = self.text.expand(len(z), -1, -1)
        for step in steps:
            z = solver.advance(model.predict(z, step.t, context), z, step.t)
        return z.cpu()

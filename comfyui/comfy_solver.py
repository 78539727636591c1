"""Euler's method over the noise levels of ComfyUI, in the arithmetic of its own sampler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from promptweave.core.clock import Step


class ComfyEuler:
    """A solver whose latents are those of ComfyUI's samplers: the image plus sigma times the noise, or, in flow models,
    the mixture of both. A network call gives the denoised latents.

    `sampling`: ComfyUI's object for the noise levels of a model; `sigmas` [steps + 1]: the levels, falling to 0. The
    result is that of ComfyUI's samplers "euler" and "ddim" bit for bit.
    """

    def __init__(self, sampling: Any, sigmas: Tensor, *, flow: bool) -> None:
        self.sampling, self.sigmas = sampling, sigmas
        times = [float(sigma) for sigma in sigmas[:-1]]
        self._places = {time: index for index, time in enumerate(times)}
        trained = [1000 * time if flow else float(sampling.timestep(sigmas[i])) for i, time in enumerate(times)]
        after = [*trained[1:], -1.0]
        self.steps: Sequence[Step] = [Step(i, len(times), t, after[i]) for i, t in enumerate(trained)]
        self._times = times

    def start(self, noise: Tensor) -> Tensor:
        """The noise at the first level."""
        first, largest = float(self.sigmas[0]), float(self.sampling.sigma_max)
        full = math.isclose(largest, first, rel_tol=1e-5) or first > largest
        return self.sampling.noise_scaling(self.sigmas[0], noise, torch.zeros_like(noise), full)

    def calls(self, step: Step) -> Sequence[int | float]:
        """The level at which a step calls the network."""
        return (self._times[step.index],)

    def scale(self, z: Tensor, t: int | float) -> Tensor:
        """The latents as they are: ComfyUI's models scale them themselves."""
        return z

    def advance(self, output: Tensor, z: Tensor, t: int | float) -> Tensor:
        """The latents at the next level, from the denoised ones."""
        place = self._places[float(t)]
        sigma = self.sigmas[place]
        return z + (z - output) / sigma * (self.sigmas[place + 1] - sigma)

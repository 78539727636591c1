"""Muon (Jordan et al. 2024): momentum whose updates are orthogonalised by a Newton-Schulz iteration."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# The authors' coefficients of the quintic iteration: five rounds bring all singular values close to 1.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, rounds: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix, approximately."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """For weights of at least two dimensions; convolution kernels are flattened to [out, in * height * width]."""

    def __init__(self, parameters: Iterable[Tensor], lr: int | float = 0.02, momentum: int | float = 0.95) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                average = state.setdefault("average", torch.zeros_like(weight))
                average.mul_(group["momentum"]).add_(weight.grad)
                update = weight.grad.add(average, alpha=group["momentum"]).flatten(1)
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                weight.add_(orthogonalise(update).view_as(weight), alpha=-group["lr"] * scale)

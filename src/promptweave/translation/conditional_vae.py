"""A conditional variational autoencoder over codes: what the flow is compared with.

Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, NeurIPS 2015),
with a standard normal prior. Its encoder gives a residual v for a code and a condition, its decoder a code; unlike a
flow's two directions they are not each other's inverse.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from promptweave.translation.flow import ConditionalFlow, Embedder, FlowSizes, perceptron


def parameters(network: nn.Module) -> int:
    """The number of a network's trained numbers."""
    return sum(one.numel() for one in network.parameters())


@dataclass(frozen=True)
class VaeSizes:
    """`dim`: size of codes and of residuals; `condition`, `embedding`: as in `FlowSizes`; `hidden`, `depth`: of encoder
    and decoder."""

    dim: int
    condition: int
    embedding: int = 64
    hidden: int = 384
    depth: int = 2

    @classmethod
    def like(cls, sizes: FlowSizes) -> VaeSizes:
        """The sizes with which it has as many parameters as a flow, to within a step of its width."""

        def made(hidden: int) -> VaeSizes:
            return cls(sizes.dim, sizes.condition, sizes.embedding, hidden)

        with torch.device("meta"):  # counted, not computed with
            wanted = parameters(ConditionalFlow(sizes))
            widths = range(8, 8 * sizes.hidden + 9, 8)
            place = bisect_left(widths, wanted, key=lambda width: parameters(ConditionalVae(made(width))))
            near = widths[max(0, place - 1) : place + 1]
            best = min(near, key=lambda width: abs(parameters(ConditionalVae(made(width))) - wanted))
        return made(best)


class ConditionalVae(nn.Module):
    """v = encoder(z, c) and z = decoder(v, c)."""

    def __init__(self, sizes: VaeSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedder = Embedder(sizes.condition, sizes.embedding, sizes.embedding)
        inputs = sizes.dim + sizes.embedding
        self.encoder = perceptron(inputs, sizes.hidden, 2 * sizes.dim, sizes.depth)
        self.decoder = perceptron(inputs, sizes.hidden, sizes.dim, sizes.depth)
        self.log_deviation = nn.Parameter(torch.zeros(sizes.dim))

    def forward(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the residuals of codes under conditions."""
        mean, log_variance = self.encoder(torch.cat([z, self.embedder(c)], 1)).chunk(2, 1)
        return mean, log_variance.clamp(-12, 4)

    def inverse(self, v: Tensor, c: Tensor) -> Tensor:
        """The mean codes of residuals under conditions."""
        return self.decoder(torch.cat([v, self.embedder(c)], 1))

    def loss(self, z: Tensor, c: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """The negative evidence lower bound in nats per sample, comparable to the flow's loss: an upper bound of the
        same quantity, without dim/2 log(2 pi)."""
        mean, log_variance = self(z, c)
        noise = torch.randn(mean.shape, generator=generator, device=generator.device if generator else mean.device)
        made = self.inverse(mean + (0.5 * log_variance).exp() * noise.to(mean), c)
        deviation = self.log_deviation.exp()
        fit = (0.5 * ((z - made) / deviation).square() + self.log_deviation).sum(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return (fit + divergence).mean()

"""A small variational autoencoder over the latents of the embedded models: one vector for an image.

The latents of the embedded autoencoder are 8 x 16 x 16 numbers in place. A conditional invertible network wants a short
code instead, smooth enough to have a density, as the paper's 128 numbers of an image (section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

Latents = Float[Tensor, "batch channels height width"]
Codes = Float[Tensor, "batch dim"]


@dataclass(frozen=True)
class SummarySizes:
    """`dim`: size of the code; `width`: channels at a quarter of the latents' grid, of which finer levels have less;
    `channels`, `grid`: shape of the latents."""

    dim: int = 64
    width: int = 96
    channels: int = 8
    grid: int = 16

    def __post_init__(self) -> None:
        if self.grid % 4 or self.width % 16 or min(self.dim, self.width, self.channels, self.grid) < 1:
            raise ValueError(
                "The summary needs a grid that is a multiple of 4 and a width that is a multiple of 16. Received "
                f"{self}."
            )


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


class Residual(nn.Module):
    """x plus two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip
        last = self.change[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x)


class Summary(nn.Module):
    """Latents to the mean and log-variance of a code, and codes to latents."""

    def __init__(self, sizes: SummarySizes) -> None:
        super().__init__()
        self.sizes = sizes
        fine, middle, coarse = sizes.width // 2, 3 * sizes.width // 4 // 8 * 8, sizes.width
        self.side = sizes.grid // 4
        flat = coarse * self.side**2
        self.encoder = nn.Sequential(
            nn.Conv2d(sizes.channels, fine, 3, padding=1), nn.SiLU(),
            nn.Conv2d(fine, middle, 4, 2, 1), Residual(middle), nn.SiLU(),
            nn.Conv2d(middle, coarse, 4, 2, 1), Residual(coarse), norm(coarse), nn.SiLU(),
            nn.Flatten(), nn.Linear(flat, 2 * sizes.dim),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(sizes.dim, flat), nn.Unflatten(1, (coarse, self.side, self.side)),
            Residual(coarse), Residual(coarse),
            nn.Upsample(scale_factor=2), nn.Conv2d(coarse, middle, 3, padding=1), Residual(middle), Residual(middle),
            nn.Upsample(scale_factor=2), nn.Conv2d(middle, fine, 3, padding=1), Residual(fine), Residual(fine),
            norm(fine), nn.SiLU(), nn.Conv2d(fine, sizes.channels, 3, padding=1),
        )  # fmt: skip

    def posterior(self, latents: Latents) -> tuple[Codes, Codes]:
        """Mean and log-variance of the codes of latents."""
        mean, log_variance = self.encoder(latents).chunk(2, 1)
        return mean, log_variance.clamp(-12, 4)

    def decode(self, codes: Codes) -> Latents:
        """The latents of codes."""
        return self.decoder(codes)

    def loss(self, latents: Latents, generator: torch.Generator, weight: float) -> Float[Tensor, ""]:
        """Mean squared error of the latents, plus `weight` times the KL divergence per latent number (beta-VAE)."""
        mean, log_variance = self.posterior(latents)
        noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
        made = self.decode(mean + (0.5 * log_variance).exp() * noise)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return (made - latents).square().mean() + weight * divergence.mean() / latents[0].numel()

"""Images to latents and back, for every kind of autoencoder in the pipelines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from promptweave.core.precision import precision


class Autoencoder:
    """An AutoencoderKL or VQModel, with its scale, shift and precision."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    @property
    def factor(self) -> int:
        """Pixels per latent cell along a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def to_latent(self, pictures: Tensor, device: torch.device) -> Tensor:
        """Images [n, height, width, 3] in [0, 1] to latents [n, channels, h, w] (the posterior's mean)."""
        with _Precise(self.vae):
            x = pictures.permute(0, 3, 1, 2).to(device, self.vae.dtype) * 2 - 1
            encoded = self.vae.encode(x)
        z = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        z = z.to(precision(z.dtype))
        scale, shift, mean, std = self._constants(z)
        return (z - mean) * scale / std if mean is not None else (z - shift) * scale

    @torch.no_grad()
    def to_image(self, z: Tensor, device: torch.device) -> Tensor:
        """Latents [n, channels, h, w] to images [n, height, width, 3] in [0, 1], on the CPU."""
        scale, shift, mean, std = self._constants(z)
        z = z * std / scale + mean if mean is not None else z / scale + shift
        with _Precise(self.vae):
            x = self.vae.decode(z.to(device, self.vae.dtype)).sample
        return (x.to(precision(x.dtype)) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu()

    def _constants(self, z: Tensor) -> tuple[float, float, Tensor | None, Any]:
        config = self.vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:
            mean, std = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1).to(z) for values in (mean, std))
        else:
            mean = std = None
        return config.get("scaling_factor", 1.0), config.get("shift_factor") or 0.0, mean, std


class _Precise:
    """Inside, an autoencoder that would overflow in half precision (`force_upcast`) is in single precision."""

    def __init__(self, vae: Any) -> None:
        self.vae, self.before = vae, vae.dtype

    def __enter__(self) -> None:
        if self.before == torch.float16 and self.vae.config.get("force_upcast"):
            self.vae.to(torch.float32)

    def __exit__(self, *error: object) -> None:
        if self.vae.dtype != self.before:
            self.vae.to(self.before)

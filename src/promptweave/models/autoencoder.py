"""Images to latents and back, for every kind of autoencoder in the pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from promptweave.core.finite import HALF, NotFinite, finite
from promptweave.core.precision import precision
from promptweave.models.quiet import quiet
from promptweave.models.switched import alone


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
        """Images [n, height, width, 3] in [0, 1] to latents [n, channels, h, w] (the posterior's mean).

        Raises NotFinite if the encoder gives no numbers, in single precision neither.
        """

        def encode() -> Tensor:
            x = pictures.permute(0, 3, 1, 2).to(device, self.vae.dtype) * 2 - 1
            encoded = self.vae.encode(x)
            return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents

        z = self._sound(encode, "The latents of the image")
        z = z.to(precision(z.dtype))
        scale, shift, mean, std = self._constants(z)
        return (z - mean) * scale / std if mean is not None else (z - shift) * scale

    @torch.no_grad()
    def to_image(self, z: Tensor, device: torch.device) -> Tensor:
        """Latents [n, channels, h, w] to images [n, height, width, 3] in [0, 1], on the CPU.

        Raises NotFinite if the decoder gives no numbers, in single precision neither.
        """
        scale, shift, mean, std = self._constants(z)
        z = z * std / scale + mean if mean is not None else z / scale + shift
        x = self._sound(lambda: self.vae.decode(z.to(device, self.vae.dtype)).sample, "The image after the last step")
        return (x.to(precision(x.dtype)) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu()

    def _sound(self, run: Callable[[], Tensor], what: str) -> Tensor:
        """A pass of the autoencoder; one that overflows in half precision is made again in single precision."""
        with alone(self.vae):  # for a moment it may be in another precision
            with _Precise(self.vae, self.vae.dtype == torch.float16 and bool(self.vae.config.get("force_upcast"))):
                x = run()
            if not finite(x) and self.vae.dtype in HALF:
                with _Precise(self.vae, True):
                    x = run()
        if not finite(x):
            also = " and in single precision" if self.vae.dtype in HALF else ""
            raise NotFinite(
                f"{what} is not finite (NaN or infinity): the autoencoder ({type(self.vae).__name__}) gives no numbers "
                f"in {str(self.vae.dtype).removeprefix('torch.')}{also}. Its weights are damaged, or the values it was "
                "given too large: use another file of the model, or another autoencoder "
                "(pipeline.vae = AutoencoderKL.from_pretrained(...))."
            )
        return x

    def _constants(self, z: Tensor) -> tuple[float, float, Tensor | None, Any]:
        config = self.vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:
            mean, std = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1).to(z) for values in (mean, std))
        else:
            mean = std = None
        return config.get("scaling_factor", 1.0), config.get("shift_factor") or 0.0, mean, std


class _Precise:
    """Inside, an autoencoder in half precision is in single precision, if it is to be."""

    def __init__(self, vae: Any, upcast: bool) -> None:
        self.vae, self.before, self.upcast = vae, vae.dtype, upcast

    def __enter__(self) -> None:
        if self.upcast and self.before in HALF:
            with quiet():
                self.vae.to(torch.float32)

    def __exit__(self, *error: object) -> None:
        if self.vae.dtype != self.before:
            with quiet():
                self.vae.to(self.before)

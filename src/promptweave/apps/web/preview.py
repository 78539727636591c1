"""A preview of a latent during sampling: colours as a linear map of its channels, fitted to the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from promptweave.models.base import Model

SAMPLES, SIDE = 6, 128  # number and minimum side (pixels) of the images for the fit


@dataclass(frozen=True, eq=False)
class Preview:
    """colour = [latent, 1] @ matrix, for each cell of the latent."""

    matrix: Float[Tensor, "channels_and_one 3"]

    @classmethod
    @torch.no_grad()
    def fit(cls, model: Model) -> Preview:
        """Fit by least squares to smooth random images and their latents by the model's autoencoder."""
        side = model.multiple * max(1, SIDE // model.multiple)
        random = torch.rand(SAMPLES, 3, 5, 5, generator=torch.Generator().manual_seed(0))
        pictures = F.interpolate(random, (side, side), mode="bilinear", align_corners=True)
        latents = torch.cat([model.to_latent(p.movedim(1, -1)) for p in pictures.split(1)]).float().cpu()
        small = F.adaptive_avg_pool2d(pictures, (latents.shape[-2], latents.shape[-1]))
        cells = latents.movedim(1, -1).flatten(0, -2)
        inputs = torch.cat([cells, torch.ones(len(cells), 1)], 1)
        return cls(torch.linalg.lstsq(inputs, small.movedim(1, -1).flatten(0, -2), driver="gelsd").solution)

    def colours(self, z: Float[Tensor, "channels h w"]) -> Float[Tensor, "h w 3"]:
        """The colours of the cells, in [0, 1]."""
        z = z.detach().float().cpu()
        return (z.movedim(0, -1) @ self.matrix[:-1] + self.matrix[-1]).clamp(0, 1)

    def picture(self, z: Float[Tensor, "channels h w"], size: tuple[int, int]) -> Image.Image:
        """The preview, enlarged to `size` (width, height)."""
        small = (self.colours(z) * 255).round().to(torch.uint8).numpy()
        return Image.fromarray(np.ascontiguousarray(small)).resize(size, Image.Resampling.BICUBIC)

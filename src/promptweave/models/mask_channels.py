"""Inpainting checkpoints: networks that read a mask and the image around it, in channels beside the latents.

Stable Diffusion 1, 2 and XL read 9 channels: the latents, the mask (1) and the latents of the image whose masked part
is grey (4). FLUX.1 Fill reads, packed like its latents, the latents, those of the image with a grey masked part, and
the mask's 8 x 8 pixels of each cell as 64 channels. As in the pipelines of diffusers, but for the autoencoder's mean
instead of a sample.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from promptweave.models.flux import PATCH, FluxModel
from promptweave.models.sdxl import SDXLModel
from promptweave.models.unet import UNetModel


def hidden(picture: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """An image [n, rows, columns, 3] in [0, 1], grey where the mask is true, and the mask [n, 1, rows, columns].

    The mask [height, width] may be coarser than the image: each of its cells then covers a block of pixels.
    """
    levels = F.interpolate(mask.float()[None, None], size=picture.shape[1:3]).to(picture)
    return torch.where(levels[0, 0, :, :, None] > 0.5, 0.5, picture), levels.expand(len(picture), -1, -1, -1)


class _NineChannels(UNetModel):
    """What the UNets of both generations have in common."""

    @property
    def channels(self) -> int:
        return self.vae.config.latent_channels if self.reads_mask else super().channels

    @property
    def reads_mask(self) -> bool:
        """Whether it is an inpainting checkpoint; the pipelines also take ordinary ones."""
        return self.unet.config.in_channels == 2 * self.vae.config.latent_channels + 1

    def masked(self, picture: Tensor, mask: Tensor) -> Tensor:
        """[n, 5, h, w]: the mask, and the latents of the image around it."""
        around, levels = hidden(picture, mask)
        latents = self.to_latent(around)
        small = F.interpolate(levels, size=latents.shape[-2:]).to(latents)
        return torch.cat([small, latents], 1)


class InpaintingUNet(_NineChannels):
    """A StableDiffusionInpaintPipeline as a `models.base.Model`."""


class InpaintingXL(_NineChannels, SDXLModel):
    """A StableDiffusionXLInpaintPipeline as a `models.base.Model`."""


class FluxFill(FluxModel):
    """A FluxFillPipeline as a `models.base.Model`."""

    def __init__(self, pipeline: Any, name: str) -> None:
        super().__init__(pipeline, name)
        self.usual = (50, 30.0)

    @property
    def channels(self) -> int:
        return self.vae.config.latent_channels if self.reads_mask else super().channels

    @property
    def reads_mask(self) -> bool:
        """Whether its channels are those of FLUX.1 Fill."""
        read = 2 * self.vae.config.latent_channels + self.factor**2
        return self.transformer.config.in_channels == read * PATCH**2

    def masked(self, picture: Tensor, mask: Tensor) -> Tensor:
        """[n, channels + 64, h, w]: the latents of the image around the mask, and the mask's pixels in each cell."""
        around, levels = hidden(picture, mask)
        latents = self.to_latent(around)
        return torch.cat([latents, F.pixel_unshuffle(levels, self.factor).to(latents)], 1)

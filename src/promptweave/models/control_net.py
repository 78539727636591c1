"""ControlNet (Zhang et al. 2023): a second network reads an image of edges, depth, ... and adds to the UNet.

A Pillow image of another shape than the result is cropped to its middle, as an input image is, so that a drawing over a
photo stays over it; diffusers' pipelines squeeze it.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor


class ControlPicture:
    """The image that a pipeline's ControlNets read, and the scale of what they add."""

    def __init__(self, pipeline: Any, picture: Any, scale: float = 1.0) -> None:
        self.pipeline, self.picture, self.scale = pipeline, picture, scale
        # Of the size that was last asked for.
        self._prepared: dict[tuple[tuple[int, int], torch.device, torch.dtype], Tensor] = {}

    def residuals(
        self, z: Tensor, t: Any, context: Tensor, added: dict[str, Tensor] | None, factor: int
    ) -> dict[str, Any]:
        """The residuals for the UNet, as its keyword arguments; every row has the same image."""
        size = (z.shape[-2] * factor, z.shape[-1] * factor)
        key = (size, z.device, z.dtype)
        if key not in self._prepared:
            processor = self.pipeline.control_image_processor
            drawn = self.picture if isinstance(self.picture, list) else [self.picture]
            mode = "crop" if all(isinstance(one, Image.Image) for one in drawn) else "default"
            made = processor.preprocess(self.picture, height=size[0], width=size[1], resize_mode=mode)
            self._prepared = {key: made.to(z.device, z.dtype)}
        picture = self._prepared[key].expand(len(z), -1, -1, -1)
        down, mid = self.pipeline.controlnet(
            z,
            t,
            encoder_hidden_states=context,
            controlnet_cond=picture,
            conditioning_scale=self.scale,
            added_cond_kwargs=added,
            return_dict=False,
        )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}

    def digest(self) -> bytes:
        """Bytes that identify the image and its scale."""
        picture = self.pipeline.control_image_processor.preprocess(self.picture)
        return (picture * 255).round().to(torch.int16).numpy().tobytes() + str(self.scale).encode()

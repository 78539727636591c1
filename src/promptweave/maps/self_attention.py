"""Self-attention: its principal components, and the map of a chosen pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from promptweave.core.record_maps import RecordedMaps
from promptweave.core.shown import brief, short
from promptweave.editing.result import Result
from promptweave.view.components import at_pixel, components, spread
from promptweave.view.heat import coloured, heat, over
from promptweave.view.sheet import sheet


@dataclass(frozen=True, eq=False)
class SelfMaps:
    """Self-attention of an image, mean over layers, heads and steps: [height, width, pixels].

    With joint attention it is the attention between pixels only; the rows then sum to less than 1.
    """

    prompt: str
    picture: Image.Image
    attention: Float[Tensor, "height width pixels"]

    def __repr__(self) -> str:
        return brief(self, short(self.prompt), f"grid {self.attention.shape[0]}x{self.attention.shape[1]}")

    def components(self, count: int = 10) -> Float[Tensor, "count height width"]:
        """The first principal components, orthonormal, [count, height, width] (`view.components`)."""
        return components(self.attention, count)

    def of_pixel(self, x: int, y: int) -> Float[Tensor, "height width"]:
        """The map [height, width] of what an image pixel attends to; x from the left, y from the top."""
        width, height = self.picture.size
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"The image has pixels 0 to {width - 1} by 0 to {height - 1}. Received x={x}, y={y}.")
        return at_pixel(self.attention, x / width, y / height)

    def component_sheet(self, count: int = 10, columns: int = 6) -> Image.Image:
        """A sheet of the image and its components, each scaled from its minimum to its maximum."""
        shown = [coloured(heat(spread(one), self.picture.size)) for one in self.components(count)]
        tiles = [np.asarray(self.picture), *shown]
        labels = ["picture", *(f"component {number}" for number in range(1, count + 1))]
        starts = range(0, len(tiles), columns)
        return sheet([tiles[i : i + columns] for i in starts], [labels[i : i + columns] for i in starts])

    def pixel_sheet(self, *pixels: tuple[int, int]) -> Image.Image:
        """A sheet with each pixel marked by a ring, and the map of what it attends to."""
        tiles, labels = [np.asarray(self.picture)], ["picture"]
        for x, y in pixels:
            marked = Image.fromarray(over(self.of_pixel(x, y), np.asarray(self.picture)))
            radius = max(2, min(marked.size) // 40)
            draw = ImageDraw.Draw(marked)
            draw.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), outline=(0, 0, 0))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(255, 255, 255))
            tiles.append(np.asarray(marked))
            labels.append(f"attention of pixel x={x}, y={y}")
        return sheet([tiles], [labels])


def self_maps_of(result: Result, row: int, *, recorder: int) -> SelfMaps:
    """The self-attention of a prompt of a run, from its recorder."""
    hook = result.watched[recorder]
    assert isinstance(hook, RecordedMaps)
    attention = hook.maps.mean(row)[0].to(torch.float32).cpu()
    return SelfMaps(result.sample.run.prompts[row], Image.fromarray(result.sample.pictures[row, 0]), attention)

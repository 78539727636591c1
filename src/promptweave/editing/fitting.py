"""How an input image gets the size of the result, and whatever belongs to it with it: one transformation for all.

`crop` keeps the middle, `pad` repeats the edges until the shape fits, `stretch` changes the shape. The size `auto` is
the model's area in the image's own shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from promptweave.editing.pixels import NOTES, BadPicture
from promptweave.editing.settings import Fit

WIDEST = 4  # sides of an automatic size: the widest that SDXL was trained on (Podell et al. 2023, appendix I)
LEAST = 0.25  # of an image must be kept, unless the crop is asked for
TURNS = {  # EXIF orientation -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
DONE = {"crop": "cropped to its middle", "pad": "padded with its edges", "stretch": "stretched"}
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Fitting:
    """The way from an image of `given` pixels, upright, to one of `size`, both (height, width).

    `turned`: the EXIF orientation by which the file was turned upright, 1 for none.
    """

    given: tuple[int, int]
    size: tuple[int, int]
    fit: Fit = "crop"
    turned: int = 1

    @property
    def box(self) -> Box:
        """The part of the given image that is kept, in its pixels."""
        height, width = self.given
        shape = self.size[1] / self.size[0]
        if self.fit != "crop":
            return 0.0, 0.0, float(width), float(height)
        kept = (shape * height, float(height)) if width / height >= shape else (float(width), width / shape)
        left, top = (width - kept[0]) / 2, (height - kept[1]) / 2
        return left, top, left + kept[0], top + kept[1]

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Where it lies in the result, in whole pixels."""
        (height, width), (high, wide) = self.given, self.size
        if self.fit != "pad":
            return 0, 0, wide, high
        scale = min(high / height, wide / width)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (wide - inner[0]) // 2, (high - inner[1]) // 2
        return left, top, left + inner[0], top + inner[1]

    @property
    def lost(self) -> float:
        """The fraction of the given image that the result does not show."""
        left, top, right, bottom = self.box
        return 1 - (right - left) * (bottom - top) / (self.given[0] * self.given[1])

    def picture(self, image: Image.Image) -> Image.Image:
        """The image in its new size."""
        if image.size == (self.size[1], self.size[0]):
            return image
        left, top, right, bottom = self.place
        inner = image.resize((right - left, bottom - top), Image.Resampling.LANCZOS, box=self.box)
        if inner.size == (self.size[1], self.size[0]):
            return inner
        around = ((top, self.size[0] - bottom), (left, self.size[1] - right), (0, 0))
        return Image.fromarray(np.pad(np.asarray(inner), around, mode="edge"))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask, bool [height, width] in the shape of the given image, in the pixels of the result; padding is out."""
        left, top, right, bottom = self.place
        scale = mask.shape[1] / self.given[1], mask.shape[0] / self.given[0]
        box = tuple(edge * scale[i % 2] for i, edge in enumerate(self.box))
        made = np.zeros(self.size, bool)
        made[top:bottom, left:right] = covered(mask, (bottom - top, right - left), box)
        return made

    def report(self) -> dict[str, Any]:
        """The facts, as JSON values."""
        turned = {"turned": self.turned} if self.turned > 1 else {}
        given, size = list(self.given), list(self.size)
        return {"given": given, "size": size, "fit": self.fit, "lost": round(self.lost, 4), **turned}


def covered(mask: np.ndarray, size: tuple[int, int], box: Any = None) -> np.ndarray:
    """A mask, bool [height, width], on a grid of `size`: the cells that it covers by more than half. `box`: a part."""
    levels = Image.fromarray(mask.astype(np.float32))
    return np.asarray(levels.resize((size[1], size[0]), Image.Resampling.BOX, box=box)) > 0.5


def upright(mask: np.ndarray, turned: int) -> np.ndarray:
    """A mask, bool [height, width], turned as an EXIF orientation says."""
    return np.asarray(Image.fromarray(mask).transpose(TURNS[turned])) if turned in TURNS else mask


def automatic(given: tuple[int, int], usual: tuple[int, int], unit: int) -> tuple[int, int]:
    """The size (height, width), in multiples of `unit`, with the area of `usual` and the shape of `given`.

    >>> automatic((128, 256), (128, 128), 8), automatic((20, 4000), (512, 512), 8)
    ((88, 176), (256, 1024))
    """
    shape = min(max(given[1] / given[0], 1 / WIDEST), WIDEST)
    area = usual[0] * usual[1]
    exact = math.sqrt(area / shape), math.sqrt(area * shape)
    sides = [{max(1, math.floor(side / unit)), max(1, math.ceil(side / unit))} for side in exact]

    def error(size: tuple[int, int]) -> tuple[float, float]:
        height, width = size
        return round(abs(math.log(width / height / shape)), 9), abs(math.log(width * height * unit**2 / area))

    height, width = min(product(sides[0], sides[1]), key=error)
    return height * unit, width * unit


def check_kept(fitting: Fitting, name: str) -> None:
    """Raise BadPicture if a crop that nobody asked for would leave nearly nothing of an image."""
    if 1 - fitting.lost >= LEAST:
        return
    (height, width), (high, wide) = fitting.given, fitting.size
    widest = max(high / wide, wide / high) >= WIDEST
    auto = "" if widest else f"size auto, which follows its shape up to {WIDEST} to 1; for "
    raise BadPicture(
        f"{name} has {height} x {width} pixels (height x width), and its middle in the shape of {high} x {wide} would "
        f"be {1 - fitting.lost:.1%} of it. Ask for {auto}fit pad, which shows all of it, or for fit crop, which takes "
        "that middle."
    )


def told(facts: Mapping[str, Any]) -> str:
    """The facts of `Fitting.report` as a sentence without its end.

    >>> told(Fitting((128, 256), (88, 176)).report())
    '128 x 256 pixels (height x width), scaled to 88 x 176'
    """
    (height, width), (high, wide) = facts["given"], facts["size"]
    said = f"{height} x {width} pixels (height x width)"
    said += f", turned by its EXIF orientation {facts['turned']}" if "turned" in facts else ""
    said += f", the first of {facts['frames']} frames" if "frames" in facts else ""
    said += "".join(f", {NOTES[note]}" for note in facts.get("notes", ()))
    if (height, width) == (high, wide):
        return said
    fitted = abs(math.log(width / height * high / wide)) > 0.002
    said += f", {DONE[facts['fit']]} and" if fitted else ","
    said += f" scaled to {high} x {wide}"
    if facts["lost"] >= 0.01:
        what = "the model does not see" if "put_back" in facts else "is lost"
        said += f" ({facts['lost']:.0%} of it {what}; size auto keeps its shape)"
    return said

"""Input images: read, cropped to the model's aspect ratio, and kept as data that a recipe can hold."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ADDRESS = re.compile(r"(?i)^([a-z][a-z0-9+.-]+):/+")
Given = Path | str | Image.Image | np.ndarray


class BadPicture(ValueError):
    """A file or an array that cannot be read as an image."""


@dataclass(frozen=True)
class Picture:
    """RGB pixels, as a lossless WebP file in `data`, so that a recipe can be replayed without the original file."""

    data: bytes

    @classmethod
    def of(cls, given: Given | Picture, size: tuple[int, int]) -> Picture:
        """Read a file, a Pillow image or uint8 [height, width, 3]; centre-crop and scale it to `size` (height, width).

        EXIF rotation is applied; transparent pixels become white. Raises FileNotFoundError and BadPicture.
        """
        if isinstance(given, Picture):
            if given.size == size:
                return given
            given = given.image()
        image = upright(_opened(given))
        if image.size != (size[1], size[0]):
            image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", lossless=True, quality=60, method=4)
        return cls(buffer.getvalue())

    def image(self) -> Image.Image:
        """The pixels as a Pillow image."""
        with self._opened() as image:
            return image.convert("RGB")

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        try:
            with Image.open(io.BytesIO(self.data), formats=["WEBP"]) as image:
                yield image
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise BadPicture(f"The input image stored in the recipe cannot be read: {error}.") from error

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, from the file's header."""
        with self._opened() as image:
            return image.height, image.width

    def pixels(self) -> np.ndarray:
        """uint8 [height, width, 3]."""
        return np.asarray(self.image())

    @property
    def digest(self) -> str:
        """A short hash of the pixels."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    def as_text(self) -> str:
        """For JSON."""
        return base64.b64encode(self.data).decode()

    @classmethod
    def from_text(cls, text: str) -> Picture:
        """The inverse of `as_text`."""
        try:
            return cls(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError, TypeError) as error:
            raise BadPicture(f"The input image stored in the recipe cannot be read: {error}.") from error

    def __repr__(self) -> str:
        return f"Picture({self.digest})"


def _opened(given: Given) -> Image.Image:
    if isinstance(given, Image.Image):
        return given
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[-1] != 3 or not given.size:
            raise BadPicture(
                f"An image as an array is uint8 [height, width, 3]. Received {given.dtype} {list(given.shape)}."
            )
        return Image.fromarray(given)
    path = Path(given)
    if ADDRESS.match(str(given)):
        said = ADDRESS.sub(r"\1://", str(given))  # a path has lost a slash
        raise BadPicture(f"Addresses are not fetched. Received {said}. Download the image, and give the file.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no image at {path}. Give the path of a PNG, JPEG or WebP file.")
    try:
        image = Image.open(path)
        image.load()
        return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadPicture(f"{path} cannot be read as an image: {error}. Give a PNG, JPEG or WebP file.") from error


def upright(image: Image.Image) -> Image.Image:
    """RGB on white, with EXIF rotation applied."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")

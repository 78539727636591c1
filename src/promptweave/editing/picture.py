"""Input images: read, fitted to the size of the result, and kept as data that a recipe can hold."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from promptweave.editing.fitting import Fitting, automatic, check_kept
from promptweave.editing.originals import stored
from promptweave.editing.pixels import NOTES, Opened, open_image
from promptweave.editing.pixels import BadPicture as BadPicture
from promptweave.editing.settings import Fit, Size
from promptweave.editing.values import read_value

Given = Any  # what `pixels.open_image` reads: a path, bytes, a Pillow image, an array or a tensor
HEADER = re.compile(
    r"data:image/webp;given=(\d{1,9})x(\d{1,9});fit=(crop|pad|stretch);turned=([1-8]);frames=(\d{1,9})"
    r"(?:;notes=([a-z+-]{1,99}))?;base64,"
)


@dataclass(frozen=True)
class Picture:
    """RGB pixels, as a lossless WebP file in `data`, so that a recipe can be replayed without the original file.

    `given`: height and width of the original, upright; None for images of recipes that do not say so. `fit`, `turned`:
    see `Fitting`. `frames`: of the file, of which this is the first. `notes`: what else was done (`pixels.NOTES`).
    `original`: the original at full size (`originals.stored`), if edits are put back into it.
    """

    data: bytes
    given: tuple[int, int] | None = None
    fit: Fit = "crop"
    turned: int = 1
    frames: int = 1
    notes: tuple[str, ...] = ()
    original: bytes | None = None

    @classmethod
    def of(
        cls, given: Given | Picture, size: tuple[int, int], fit: Fit | None = None, *, keep: bool = False
    ) -> Picture:
        """Read an image (see `open_image`) and fit it to `size` (height, width); `fit` None: crop. `keep`: with its
        original at full size, which a `Picture` that has one always keeps.

        EXIF rotation is applied; colours become sRGB, transparent pixels white. Raises FileNotFoundError, and
        BadPicture also for a crop that was not asked for and would lose more than three quarters of the image.
        """
        if isinstance(given, Picture):
            if keep and given.original is None:
                raise BadPicture(
                    "The original of this image was not kept with it, so nothing can be put back into it. Give the "
                    "image's file."
                )
            if given.size == size and fit in (None, given.fit):
                return given
            keep = given.original is not None
            opened = given.whole() if keep else open_image(given.image())
        else:
            opened = open_image(given)
        fitting = Fitting(opened.size, size, fit or "crop", opened.turned)
        if fit is None:
            check_kept(fitting, opened.name)
        buffer = io.BytesIO()
        fitting.picture(opened.rgb()).save(buffer, "WEBP", lossless=True, quality=60, method=4)
        original = stored(opened) if keep else None
        return cls(
            buffer.getvalue(), opened.size, fitting.fit, opened.turned, opened.frames, opened.notes, original
        )  # fmt: skip

    @classmethod
    def brought(
        cls,
        given: Given | Picture,
        size: Size | None,
        fit: Fit | None,
        usual: tuple[int, int],
        unit: int,
        *,
        keep: bool = False,
    ) -> Picture:
        """An image for a model whose own size is `usual` and whose sizes are multiples of `unit`; `size` as asked."""
        if not isinstance(given, Picture):
            given = open_image(given)
        return cls.of(given, automatic(given.size, usual, unit) if size == "auto" else size or usual, fit, keep=keep)

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

    def whole(self) -> Opened:
        """The original at full size. Raises BadPicture if it cannot be read, or is not the one of these pixels."""
        self.check_original()
        opened = open_image(self.original, "The original stored in the recipe")
        if opened.size != self.given:
            raise BadPicture(
                f"The original stored in the recipe must have {self.given} pixels (height, width). Received "
                f"{opened.size}. Edit the image again."
            )
        return opened

    def check_original(self) -> None:
        """Raise BadPicture unless the original at full size is a PNG or JPEG file of the right number of pixels."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(self.original or b""), formats=["PNG", "JPEG"]) as image:
                    size = image.height, image.width
        except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise BadPicture(f"The original stored in the recipe cannot be read: {error}.") from error
        if self.given is None or sorted(size) != sorted(self.given):
            raise BadPicture(f"The original stored in the recipe must have {self.given} pixels. Received {size}.")

    @property
    def fitting(self) -> Fitting:
        """The way from the original to these pixels."""
        return Fitting(self.given or self.size, self.size, self.fit, self.turned)

    def report(self) -> dict[str, Any]:
        """What became of the original, as JSON values; see `fitting.told`."""
        frames = {"frames": self.frames} if self.frames > 1 else {}
        return {**self.fitting.report(), **frames, **({"notes": list(self.notes)} if self.notes else {})}

    def pixels(self) -> np.ndarray:
        """uint8 [height, width, 3]."""
        return np.asarray(self.image())

    @property
    def digest(self) -> str:
        """A short hash of the pixels."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    def as_text(self) -> str:
        """For JSON: a data URL, whose parameters say where the pixels come from; without them plain base64."""
        text = base64.b64encode(self.data).decode()
        if self.given is None:
            return text
        said = f"given={self.given[0]}x{self.given[1]};fit={self.fit};turned={self.turned};frames={self.frames}"
        said += f";notes={'+'.join(self.notes)}" if self.notes else ""
        whole = "" if self.original is None else f" data:;base64,{base64.b64encode(self.original).decode()}"
        return f"data:image/webp;{said};base64,{text}{whole}"

    @classmethod
    def from_text(cls, text: str) -> Picture:
        """The inverse of `as_text`."""
        text, apart, whole = text.partition(" data:;base64,")
        try:
            found = HEADER.match(text)
            data = base64.b64decode(text[found.end() :] if found else text, validate=True)
            original = base64.b64decode(whole, validate=True) if apart else None
        except (binascii.Error, ValueError, TypeError) as error:
            raise BadPicture(f"The input image stored in the recipe cannot be read: {error}.") from error
        if found is None:
            return cls(data)
        height, width, fit, turned, frames, notes = found.groups()
        if not int(height) or not int(width):
            raise BadPicture(f"The input image stored in the recipe has no pixels: {height} x {width}.")
        known = tuple(note for note in (notes or "").split("+") if note in NOTES)
        size, chosen = (int(height), int(width)), read_value(Fit, fit, "fit")
        return cls(data, size, chosen, int(turned), int(frames), known, original)

    def __repr__(self) -> str:
        return f"Picture({self.size[1]}x{self.size[0]}, {self.digest})"


def upright(image: Image.Image) -> Image.Image:
    """A Pillow image of any mode as 8-bit RGB on white, with EXIF rotation applied."""
    return open_image(image).rgb()

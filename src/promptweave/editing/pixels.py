"""Whatever is given as an image, as numbers: files that Pillow reads, their bytes, Pillow images, arrays and tensors.

Which of their numbers is white: see `white`.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from promptweave.editing.colour_profiles import coloured, from_srgb, to_srgb
from promptweave.editing.heic import EXTRA, read_heic
from promptweave.editing.signatures import is_heic, named
from promptweave.editing.white import BadPicture as BadPicture
from promptweave.editing.white import eight_bits
from promptweave.editing.white import white as white

HEAD = 1024  # bytes by which a file is recognised
NOTES = {  # what was done to an image, as text
    "profile": "its colours converted to sRGB",
    "broken-profile": "its colour profile left out, since it is damaged or not of these colours",
    "bits": "its channels of more than 8 bits read as 8",
    "transparent": "its transparent pixels shown white",
}
ADDRESS = re.compile(r"data:|[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Opened:
    """An image as it is seen: `values` [height, width, 1 or 3] in the range of the file, `alpha` [height, width].

    `turned`: the EXIF orientation that was applied, 1 for none. `frames`: of the file, of which this is the first.
    `profile`: the ICC profile of its colours, None for sRGB. `notes`: what else was done, see `NOTES`.
    `jpeg`: the file, if it is one.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    turned: int = 1
    frames: int = 1
    name: str = "The image"
    profile: bytes | None = None
    notes: tuple[str, ...] = ()
    jpeg: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.values.shape[0], self.values.shape[1]

    def rgb(self) -> Image.Image:
        """8-bit sRGB, on white where it is transparent. Raises BadPicture for numbers without a known white."""
        image = Image.fromarray(self.colours())
        image = image if self.profile is None else to_srgb(image, self.profile)
        alpha = self.opacity()
        if alpha is None:
            return image
        image.putalpha(Image.fromarray(alpha))
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")

    def colours(self) -> np.ndarray:
        """8-bit RGB in the image's own colour space, uint8 [height, width, 3], whatever its alpha."""
        values = eight_bits(self.values, self.name)
        return values.repeat(3, -1) if values.shape[-1] == 1 else values

    def opacity(self) -> np.ndarray | None:
        """Its alpha, uint8 [height, width]."""
        return None if self.alpha is None else eight_bits(self.alpha, self.name)

    def from_srgb(self, colours: np.ndarray) -> np.ndarray:
        """sRGB colours, uint8 [height, width, 3], in the image's own colour space."""
        return colours if self.profile is None else from_srgb(colours, self.profile)


def open_image(given: Any, name: str | None = None) -> Opened:
    """Read a path, the bytes of a file, a file object, a Pillow image, an array or a tensor.

    Arrays are [height, width], [height, width, channels] or [channels, height, width] of 1 to 4 channels (grey, grey
    and alpha, RGB, RGBA), of any type of numbers. `name`: what the image is, for messages. Raises FileNotFoundError
    and BadPicture.
    """
    said, name = name, name or "The image"
    if isinstance(given, Opened):
        return given
    if isinstance(given, Image.Image):
        try:
            return _read(given, name)
        except (BadPicture, MemoryError):
            raise
        except Exception as error:  # pixels are decoded only now, or the file was closed
            raise BadPicture(f"{name} cannot be read: {error}. Load it: image.load().") from error
    if isinstance(given, bytes | bytearray | memoryview):
        return _file(io.BytesIO(bytes(given)), name)
    if isinstance(given, str | os.PathLike):
        path = _path(given, said)
        return _file(path, f"{said} {path}" if said else str(path))
    if hasattr(given, "read"):
        return _file(io.BytesIO(given.read()), name)
    if hasattr(given, "detach"):  # a tensor
        given = given.detach().cpu()
        given = (given.float() if given.is_floating_point() else given).numpy()
    if hasattr(given, "__array__"):
        return _array(np.asarray(given), name)
    raise BadPicture(
        f"{name} must be a path, a Pillow image, an array or a tensor. Received {type(given).__name__}. Open it first."
    )


def _path(given: Any, said: str | None) -> Path:
    path, text, name = Path(given), str(os.fspath(given)), said or "The image"
    if ADDRESS.match(text):
        whole = re.sub(r":/+", "://", text, count=1)  # a path has lost a slash
        raise BadPicture(f"Addresses are not fetched. Received {whole[:80]}. Download the image, and give the file.")
    try:
        if path.is_dir():
            raise BadPicture(f"{path} is a folder. Give the path of one image in it.")
        if not path.is_file():
            whose = "There" if said is None else f"{said}: there"
            raise FileNotFoundError(f"{whose} is no image at {path}. Give the path of a PNG, JPEG or WebP file.")
        if not path.stat().st_size:
            raise BadPicture(f"{path} is empty: it has 0 bytes. Save or download it again.")
    except (PermissionError, NotADirectoryError) as error:
        raise BadPicture(f"{path} cannot be read: {error.strerror}. Allow it, or copy the file.") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise BadPicture(f"{name} is read from a file. Received a text that is no path: {text[:80]}.") from error
    return path


def _file(source: Path | io.BytesIO, name: str) -> Opened:
    format = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what can be read is read
            with Image.open(source) as image:
                format = image.format
                # a camera's JPEG may hold a preview behind the photo (MPO)
                frames = 1 if format in ("MPO", "JPEG") else getattr(image, "n_frames", 1)
                image.seek(0)
                deep = any(";16" in str(tile.args) for tile in image.tile)
                image.load()
                found = _read(image, name, frames)
                jpeg = _whole(source) if format in ("JPEG", "MPO") else None
                return replace(found, notes=(*found.notes, *(["bits"] if deep else [])), jpeg=jpeg)
    except (BadPicture, MemoryError):
        raise
    except PermissionError as error:
        raise BadPicture(f"{name} cannot be read: {error.strerror}. Allow it, or copy the file.") from error
    except Image.DecompressionBombError as error:
        raise _bomb(name) from error
    except UnidentifiedImageError as error:
        head = _whole(source, HEAD)
        if is_heic(head):
            return _heic(source, name)
        what, cure = named(head)
        raise BadPicture(f"{name} cannot be read: it is {what}. {cure}.") from error
    except Exception as error:  # any error of a decoder on a damaged or hostile file
        raise _damaged(name, format or "image", error) from error


def _heic(source: Path | io.BytesIO, name: str) -> Opened:
    try:
        read = read_heic(_whole(source))
        if read is None:
            raise BadPicture(f"{name} is a HEIC image, {EXTRA}.")
        image, frames, bits = read
        found = _read(image, name, frames)
    except BadPicture:
        raise
    except Image.DecompressionBombError as error:
        raise _bomb(name) from error
    except Exception as error:  # any error of a decoder on a damaged or hostile file
        raise _damaged(name, "HEIC", error) from error
    return replace(found, notes=(*found.notes, *(["bits"] if bits > 8 else [])))


def _bomb(name: str) -> BadPicture:
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return BadPicture(
        f"{name} has more than the {most / 1e6:.0f} million pixels that are read, since such files can exhaust the "
        "memory. Save it smaller; if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS in Python."
    )


def _damaged(name: str, kind: str, error: Exception) -> BadPicture:
    return BadPicture(
        f"{name} is a damaged or unusual {kind} file: {error}. Save or download it again, as PNG or JPEG."
    )


def _whole(source: Path | io.BytesIO, most: int = -1) -> bytes:
    """The bytes of a file, or the first `most`."""
    if isinstance(source, io.BytesIO):
        return source.getvalue()[: None if most < 0 else most]
    with source.open("rb") as file:
        return file.read(most)


def _read(image: Image.Image, name: str, frames: int = 1) -> Opened:
    """A Pillow image of any mode, upright."""
    if not image.width or not image.height:
        raise BadPicture(f"{name} must have pixels. Received {image.width} x {image.height}.")
    turned = _orientation(image.getexif().get(ExifTags.Base.Orientation, 1))
    upright = ImageOps.exif_transpose(image)
    upright, profile, notes = coloured(upright)
    values, alpha = _numbers(upright, name)
    found = Opened(values, alpha, turned, frames, name, profile, notes)
    clear = alpha is not None and alpha.min() < white(alpha)
    return replace(found, notes=(*notes, "transparent")) if clear else found


def _numbers(image: Image.Image, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The values [height, width, 1 or 3] and the alpha [height, width] of a Pillow image."""
    clear = image.info.get("transparency")
    if image.mode in ("1", "F") or image.mode.startswith("I"):
        values = np.asarray(image)
        return values[..., None], values != clear if isinstance(clear, int) else None
    if image.mode in ("L", "RGB") and clear is None:
        values = np.asarray(image)
        return values.reshape(*values.shape[:2], -1), None
    try:
        found = image.convert("RGBA" if clear is not None or image.mode in ALPHA else "RGB")
    except ValueError as error:
        raise BadPicture(f"{name} has colours that are not supported ({image.mode}). Save it as RGB.") from error
    values = np.asarray(found)
    return values[..., :3], values[..., 3] if found.mode == "RGBA" else None


ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")


def _orientation(value: Any) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _array(values: np.ndarray, name: str) -> Opened:
    shape = values.shape
    while values.ndim > 3 and len(values) == 1:
        values = values[0]
    if values.ndim == 2:
        values = values[..., None]
    elif values.ndim == 3 and not 1 <= values.shape[-1] <= 4 and 1 <= len(values) <= 4:
        values = np.moveaxis(values, 0, -1)
    if values.ndim != 3 or not 1 <= values.shape[-1] <= 4 or not values.size:
        raise BadPicture(
            f"{name} as an array is one image, [height, width] or [height, width, channels] with 1 to 4 channels. "
            f"Received {values.dtype} {list(shape)}."
        )
    notes = ("bits",) if white(values, name) == 65535 else ()
    values = np.ascontiguousarray(values)
    if values.shape[-1] in (2, 4):
        # the colours may lie far below the alpha: both have its white
        values = values if values.dtype.kind == "b" else eight_bits(values, name)
        return Opened(values[..., :-1], values[..., -1], name=name, notes=notes)
    return Opened(values, name=name, notes=notes)

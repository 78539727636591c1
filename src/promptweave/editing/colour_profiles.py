"""ICC colour profiles of files: to sRGB, which models are trained on, and back into the space of an original."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms

NEAR = 2  # of 255: a profile that moves no colour further is sRGB under another name
SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile -> mode of the images that it is for
Space = Literal["RGB", "L", "CMYK"]
FAILURES = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def space_of(profile: bytes) -> Space | None:
    """The mode of images that a profile is for; None for one that is damaged, or of another kind."""
    try:
        read: Any = _opened(profile)  # Pillow's own types do not name the profile
        found = SPACES.get(read.profile.xcolor_space.strip())
        if found is not None:
            _transform(profile, found, "RGB", False)
    except FAILURES:
        return None
    return found  # pyright: ignore[reportReturnType]


def is_srgb(profile: bytes) -> bool:
    """Whether an RGB or grey profile leaves colours as they are, but for rounding."""
    space = space_of(profile)
    if space == "RGB":
        line = np.linspace(0, 255, 9).astype(np.uint8)
        given = np.stack(np.meshgrid(line, line, line), -1).reshape(27, 27, 3)
    elif space == "L":
        given = np.arange(256, dtype=np.uint8).reshape(16, 16)
    else:
        return False
    found = np.asarray(to_srgb(Image.fromarray(given), profile)).astype(int)
    return int(np.abs(found - given.reshape(*given.shape[:2], -1)).max()) <= NEAR


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An image of mode RGB, L or CMYK as sRGB (relative colorimetric, with black point compensation)."""
    return _apply(_transform(profile, image.mode, "RGB", False), image)


def from_srgb(colours: np.ndarray, profile: bytes) -> np.ndarray:
    """sRGB colours, uint8 [height, width, 3], in the space of an RGB profile."""
    return np.asarray(_apply(_transform(profile, "RGB", "RGB", True), Image.fromarray(colours)))


def coloured(image: Image.Image) -> tuple[Image.Image, bytes | None, tuple[str, ...]]:
    """The image, its RGB profile unless that is sRGB, and notes; other colour spaces are converted to sRGB here."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return image, None, ()
    space = space_of(profile)
    if space is None or (space == "CMYK") != (image.mode == "CMYK"):
        return image, None, ("broken-profile",)
    if space == "RGB":
        return (image, None, ()) if is_srgb(profile) else (image, profile, ("profile",))
    if space == "CMYK":
        return to_srgb(image, profile), None, ("profile",)
    if image.mode not in ("L", "LA"):  # a grey profile of what is no grey image of 8 bits
        return image, None, ("broken-profile",)
    if is_srgb(profile):
        return image, None, ()
    made = to_srgb(image.convert("L"), profile)
    if image.mode == "LA":
        made.putalpha(image.getchannel("A"))
    elif "transparency" in image.info:
        made.putalpha(Image.fromarray(np.where(np.asarray(image) == image.info["transparency"], 0, 255).astype("u1")))
    return made, None, ("profile",)


def _apply(transform: Any, image: Image.Image) -> Image.Image:
    made = ImageCms.applyTransform(image, transform)
    assert made is not None  # not in place
    made.info.pop("icc_profile", None)
    return made


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


@lru_cache(8)
def _transform(profile: bytes, given: str, wanted: str, back: bool) -> Any:
    own, srgb = _opened(profile), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    first, last = (srgb, own) if back else (own, srgb)
    return ImageCms.buildTransform(
        first, last, given, wanted, ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    )  # fmt: skip

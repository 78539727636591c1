"""HEIC images, as phones take them, read with the package pillow-heif: the extra `promptweave[heic]`."""

from __future__ import annotations

import io

from PIL import Image

EXTRA = "which the package pillow-heif reads: pip install 'promptweave[heic]'. Or save it as JPEG"


def read_heic(data: bytes) -> tuple[Image.Image, int, int] | None:
    """The first image of a HEIC file, upright, the number of its images, and its bits a channel; None without the
    package.

    Raises Image.DecompressionBombError before anything is decoded, and ValueError for a damaged file.
    """
    try:
        import pillow_heif
    except ImportError:
        return None
    found = pillow_heif.open_heif(io.BytesIO(data))
    width, height = found.size
    if Image.MAX_IMAGE_PIXELS and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"{width} x {height} pixels")
    return found.to_pillow(), len(found), int(found.info.get("bit_depth", 8))

"""Originals at full size, as recipes keep them: the same pixels, and nothing that a photo tells beside them.

A JPEG file is kept as it is, and so stays small, but without the parts that say who took it, when, where and with what
(EXIF but for the orientation, XMP, IPTC, comments, a preview behind the image). Any other image becomes a PNG of 8 bits
a channel.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from promptweave.editing.pixels import BadPicture, Opened, open_image

SCAN, END, FIRST = 0xDA, 0xD9, b"\xff\xd8"  # markers of JPEG: entropy-coded data, the end, and the first bytes
KEPT = {0xE0: b"JFIF", 0xE2: b"ICC_PROFILE", 0xEE: b"Adobe"}  # what decoders need of the application's segments
COMMENT = 0xFE
MOST = 40_000_000  # bytes: Pillow reads no more text from a PNG than 64 MiB, and base64 adds a third
PIXELS = 89_000_000  # Pillow warns of larger files as decompression bombs


def stored(opened: Opened) -> bytes:
    """An original as a file that `open_image` reads into the same upright colours, alpha and profile.

    Raises BadPicture for one that is too large for a recipe.
    """
    count = opened.size[0] * opened.size[1]
    made = _stored(opened) if count <= PIXELS else b""
    if len(made) > MOST or count > PIXELS:
        raise BadPicture(
            f"An original that is kept may have {PIXELS / 1e6:.0f} million pixels and {MOST / 1e6:.0f} MB. Received "
            f"{count / 1e6:.0f} million and {len(made) / 1e6:.0f} MB. Save it as JPEG, or smaller."
        )
    return made


def _stored(opened: Opened) -> bytes:
    if opened.jpeg is not None and (plain := _same(opened)) is not None:
        return plain
    image = Image.fromarray(opened.colours())
    alpha = opened.opacity()
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **({} if opened.profile is None else {"icc_profile": opened.profile}))
    return buffer.getvalue()


def _same(opened: Opened) -> bytes | None:
    """Its JPEG file without what is not pixels; None if that would not be the same image."""
    assert opened.jpeg is not None
    try:
        plain = without_extras(opened.jpeg, opened.turned)
        again = open_image(plain)
    except (BadPicture, IndexError, ValueError):  # an unusual file, which may still be readable
        return None
    same = again.profile == opened.profile and again.alpha is None
    return plain if same and np.array_equal(again.colours(), opened.colours()) else None


def without_extras(jpeg: bytes, turned: int = 1) -> bytes:
    """A JPEG file without metadata but its orientation, and without what follows the image.

    Raises ValueError and IndexError for data that is no whole JPEG file.
    """
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turned
    facts = exif.tobytes()
    parts = [FIRST, b"\xff\xe1" + (len(facts) + 2).to_bytes(2, "big") + facts] if turned > 1 else [FIRST]
    for marker, data in _segments(jpeg):
        begin = data[4 : 4 + 12]
        if marker == COMMENT or (0xE0 <= marker <= 0xEF and not begin.startswith(KEPT.get(marker, b"\x00none"))):
            continue
        parts.append(data)
    return b"".join(parts)


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and bytes of each segment behind the first marker, up to the end of the image."""
    if not jpeg.startswith(FIRST):
        raise ValueError("no JPEG file")
    place = 2
    while True:
        if jpeg[place] != 0xFF:
            raise ValueError("no marker where one must be")
        while jpeg[place + 1] == 0xFF:  # fill bytes
            place += 1
        marker = jpeg[place + 1]
        if marker == END:
            yield marker, jpeg[place : place + 2]
            return
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if marker == SCAN:
            end = _end_of_scan(jpeg, end)
        yield marker, jpeg[place:end]
        place = end


def _end_of_scan(jpeg: bytes, place: int) -> int:
    """Where the next marker begins that is neither a restart nor a byte of data."""
    while True:
        place = jpeg.index(b"\xff", place)
        if jpeg[place + 1] == 0 or 0xD0 <= jpeg[place + 1] <= 0xD7:
            place += 2
        elif jpeg[place + 1] == 0xFF:
            place += 1
        else:
            return place

"""Colour profiles, HEIC and AVIF, animations, bombs and truncated files."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms

from promptweave.editing.fitting import told
from promptweave.editing.picture import Picture
from promptweave.editing.pixels import NOTES, BadPicture, open_image
from promptweave.editing.put_back import put_back

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
STEPS = np.stack(np.meshgrid(*[np.linspace(0, 255, 5).astype(np.uint8)] * 3), -1).reshape(5, 25, 3)


def profile(kind: bytes, *tags: tuple[bytes, bytes], space: bytes = b"RGB ") -> bytes:
    """An ICC profile of version 2, written by hand."""
    tags = ((b"desc", b"desc" + bytes(4) + (9).to_bytes(4, "big") + b"by hand!\0" + bytes(79)), *tags)
    place, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags:
        value += bytes(-len(value) % 4)
        table += name + (place + len(data)).to_bytes(4, "big") + len(value).to_bytes(4, "big")
        data += value
    body = len(tags).to_bytes(4, "big") + table + data
    head = (128 + len(body)).to_bytes(4, "big") + bytes(4) + bytes([2, 0x40, 0, 0]) + kind + space + b"XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + _xyz(0.9642, 1, 0.8249)[8:]
    return head + bytes(128 - len(head)) + body


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(round(v * 65536).to_bytes(4, "big", signed=True) for v in values)


WHITE = _xyz(0.9642, 1, 0.8249)


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + (1).to_bytes(4, "big") + round(value * 256).to_bytes(2, "big")


def rgb_profile(swapped: bool = False, gamma: float = 2.2) -> bytes:
    """The primaries of sRGB, red and green exchanged if asked, with a plain gamma."""
    red, green, blue = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
    red, green = (green, red) if swapped else (red, green)
    curves = [(name, _gamma(gamma)) for name in (b"rTRC", b"gTRC", b"bTRC")]
    columns = [
        (b"rXYZ", _xyz(*red)),
        (b"gXYZ", _xyz(*green)),
        (b"bXYZ", _xyz(*blue)),
        (b"wtpt", _xyz(0.9642, 1, 0.8249)),
    ]
    return profile(b"mntr", *columns, *curves)


def png(values: np.ndarray, icc: bytes, mode: str | None = None, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(buffer, kind, icc_profile=icc)
    return buffer.getvalue()


def test_a_profile_becomes_srgb():
    """Red and green exchanged: what the numbers call red is green."""
    opened = open_image(png(STEPS, rgb_profile(swapped=True)))
    assert opened.notes == ("profile",) and opened.profile is not None
    assert np.array_equal(opened.colours(), STEPS)  # as they are in the file
    shown = np.asarray(opened.rgb()).astype(int)
    pure = open_image(png(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8), rgb_profile(swapped=True)))
    assert np.abs(np.asarray(pure.rgb()).astype(int) - [[0, 255, 0], [255, 0, 0], [0, 0, 255]]).max() <= 3
    assert np.abs(shown[..., [1, 0, 2]] - STEPS).mean() < 6  # but for the curve
    linear = np.asarray(open_image(png(np.full((1, 1, 3), 55, np.uint8), rgb_profile(gamma=1.0))).rgb())
    assert np.abs(linear.astype(int) - 128).max() <= 2  # 0.2157 of the light
    clear = np.dstack([STEPS, np.full(STEPS.shape[:2], 255, np.uint8)])
    assert np.array_equal(np.asarray(open_image(png(clear, rgb_profile(swapped=True))).rgb()), shown)


def test_srgb_changes_nothing():
    opened = open_image(png(STEPS, SRGB))
    assert opened.notes == () and opened.profile is None and np.array_equal(np.asarray(opened.rgb()), STEPS)
    assert open_image(png(STEPS[..., 0], SRGB)).notes == ()  # a grey image that says sRGB


def test_grey_and_cmyk_profiles():
    grey = profile(b"mntr", (b"wtpt", WHITE), (b"kTRC", _gamma(1.0)), space=b"GRAY")
    line = np.linspace(0, 255, 12).astype(np.uint8).reshape(3, 4)
    linear = (line / 255) ** (1 / 2.2) * 255
    for mode in (None, "LA"):
        opened = open_image(png(line, grey, mode))
        assert opened.notes == ("profile",)
        assert np.abs(np.asarray(opened.rgb())[..., 0] - linear).max() < 12 and opened.rgb().mode == "RGB"
    cmyk = Image.fromarray(STEPS).convert("CMYK")
    buffer = io.BytesIO()
    cmyk.save(buffer, "TIFF", icc_profile=rgb_profile())
    wrong = open_image(buffer.getvalue())
    assert wrong.notes == ("broken-profile",) and np.array_equal(
        np.asarray(wrong.rgb()), np.asarray(cmyk.convert("RGB"))
    )


@pytest.mark.parametrize("damage", [b"no profile", SRGB[:150], SRGB[:36] + b"XXXX" + SRGB[40:], bytes(200)])
def test_a_broken_profile_is_said_and_left_out(damage):
    opened = open_image(png(STEPS, damage))
    assert opened.notes == ("broken-profile",) and np.array_equal(np.asarray(opened.rgb()), STEPS)
    picture = Picture.of(png(STEPS, damage), (5, 25))
    again = Picture.from_text(picture.as_text())
    assert again == picture and NOTES["broken-profile"] in told(again.report())


def test_an_edit_goes_back_into_the_colours_of_the_original():
    """Outside the numbers of the file, with its profile; inside what looks like the edit."""
    given = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    picture = Picture.of(png(given, rgb_profile(swapped=True)), (40, 40), keep=True)
    assert "profile" in Picture.from_text(picture.as_text()).notes
    mask = np.zeros((40, 40), bool)
    mask[5:35, 5:35] = True
    edit = np.full((40, 40, 3), (255, 0, 0), np.uint8)
    made = put_back(picture.whole(), picture.fitting, edit, region=mask).image
    assert np.array_equal(np.asarray(made)[~mask], given[~mask])
    buffer = io.BytesIO()
    made.save(buffer, "PNG")
    seen = np.asarray(open_image(buffer.getvalue()).rgb())[20, 20]
    assert np.abs(seen.astype(int) - [255, 0, 0]).max() <= 4 and tuple(np.asarray(made)[20, 20]) != (255, 0, 0)


def test_heic_and_avif(tmp_path, monkeypatch):
    import pillow_heif as heif

    image = Image.fromarray(np.kron(np.eye(4, dtype=np.uint8) * 200, np.ones((16, 16), np.uint8))).convert("RGB")
    heif.from_pillow(image).save(tmp_path / "photo.heic", quality=95)
    image.save(tmp_path / "photo.avif", quality=95)
    for name in ("photo.heic", "photo.avif"):
        found = open_image(tmp_path / name)
        assert np.abs(np.asarray(found.rgb()).astype(int) - np.asarray(image)).mean() < 4
        assert Picture.of(found, (32, 32), keep=True).whole().size == (64, 64)
        with pytest.raises(BadPicture, match="damaged"):
            open_image((tmp_path / name).read_bytes()[:200])
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadPicture, match=r"photo.heic is a HEIC image, .*pip install 'promptweave\[heic\]'. Or save"):
        open_image(tmp_path / "photo.heic")
    monkeypatch.undo()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for name in ("photo.heic", "photo.avif"):
        with pytest.raises(BadPicture, match="million pixels"):
            open_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_a_truncated_file_is_refused(kind):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, kind)
    data = buffer.getvalue()
    open_image(data)
    with pytest.raises(BadPicture, match="damaged or unusual|cannot be read"):
        open_image(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_an_animation_the_first_frame_is_taken_and_it_is_said(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100)
    picture = Picture.of(buffer.getvalue(), (16, 16))
    assert picture.frames == 3 and "the first of 3 frames" in told(picture.report())
    assert np.abs(picture.pixels()[8, 8].astype(int) - [255, 0, 0]).max() < 8


def test_more_than_8_bits_are_said():
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, "PNG")
    for given in (deep, buffer.getvalue()):
        picture = Picture.of(given, (8, 8))
        assert picture.notes == ("bits",) and NOTES["bits"] in told(picture.report())
    assert Picture.of(STEPS, (5, 25)).notes == ()
    clear = np.dstack([STEPS, np.full(STEPS.shape[:2], 100, np.uint8)])
    assert Picture.of(Image.fromarray(clear), (5, 25)).notes == ("transparent",)

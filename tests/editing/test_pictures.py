"""Images and masks as people bring them: every range of numbers, every shape, and what is no image at all."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from promptweave.core.control import NoEffect
from promptweave.editing.fitting import Fitting, automatic, told
from promptweave.editing.masks import Frame, read_mask
from promptweave.editing.picture import BadPicture, Picture
from promptweave.editing.pixels import open_image

RAMP = np.linspace(0, 255, 48).round().astype(np.uint8).reshape(6, 8)  # grey, from black to white
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T.reshape(6, 8)], -1)
SQUARE = np.zeros((128, 256), bool)
SQUARE[32:96, 96:160] = True  # of the issue: columns 96 to 159


def saved(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def levels(values: np.ndarray) -> dict[str, object]:
    """The same grey image in every range that has a white."""
    return {
        "8 bits": values,
        "16 bits": values.astype(np.uint16) * 257,
        "16 bits that hold 8": values.astype(np.uint16),
        "32 bits that hold 16": values.astype(np.int32) * 257,
        "64 bits that hold 8": values.astype(np.int64),
        "0 to 1": values / 255,
        "half precision": (values / 255).astype(np.float16),
        "0 to 255": values.astype(np.float32),
        "one channel": values[..., None],
        "a batch of one": values[None, ..., None] / 255,
        "channels first": np.stack([values] * 3),
        "a tensor": torch.from_numpy(values / 255).to(torch.bfloat16)[None],
        "a tensor with a gradient": torch.nn.Parameter(torch.from_numpy(values / 255)),
    }


@pytest.mark.parametrize("kind", levels(RAMP))
def test_an_array_is_what_it_shows(kind):
    found = np.asarray(open_image(levels(RAMP)[kind]).rgb())
    assert np.abs(found.astype(int) - RAMP[..., None]).max() <= (1 if "precision" in kind or kind == "a tensor" else 0)


def test_a_file_is_what_it_shows(tmp_path):
    """Pillow clips 16 bits and floating-point numbers to 0 and 255 if it is asked for RGB."""
    grey = Image.fromarray(RAMP)
    files = [
        saved(tmp_path / "16.png", Image.fromarray(RAMP.astype(np.uint16) * 257)),
        saved(tmp_path / "16.tif", Image.fromarray(RAMP.astype(np.uint16) * 257)),
        saved(tmp_path / "32.tif", Image.fromarray(RAMP.astype(np.int32) * 257)),
        saved(tmp_path / "unit.tif", Image.fromarray((RAMP / 255).astype(np.float32))),
        saved(tmp_path / "float.tif", Image.fromarray(RAMP.astype(np.float32))),
        saved(tmp_path / "palette.png", grey.convert("P")),
        saved(tmp_path / "clear.png", grey.convert("LA")),
    ]
    for path in files:
        found = np.asarray(open_image(path).rgb()).astype(int)
        assert np.abs(found - RAMP[..., None]).max() <= 0, path
        read = open_image(path.read_bytes()), open_image(io.BytesIO(path.read_bytes()))
        assert all(np.array_equal(np.asarray(one.rgb()), found) for one in read)
    one = saved(tmp_path / "bits.png", grey.point(lambda v: 255 * (v > 127)).convert("1"))
    assert np.array_equal(np.asarray(open_image(one).rgb())[..., 0], np.where(RAMP > 127, 255, 0))
    cmyk = open_image(saved(tmp_path / "cmyk.jpg", Image.fromarray(COLOURS).convert("CMYK"), quality=100)).rgb()
    assert np.abs(np.asarray(cmyk).astype(int) - COLOURS).mean() < 12  # JPEG


def test_transparent_is_white(tmp_path):
    clear = np.dstack([COLOURS, np.zeros_like(RAMP)])
    clear[:, :4, 3] = 255
    half = np.full((6, 8, 4), (0, 0, 0, 128), np.uint8)
    palette = Image.fromarray(RAMP).convert("P")
    files = [
        saved(tmp_path / "clear.png", Image.fromarray(clear)),
        saved(tmp_path / "clear.webp", Image.fromarray(clear), lossless=True),
    ]
    for given in (clear, Image.fromarray(clear), *files):
        found = np.asarray(open_image(given).rgb())
        assert np.array_equal(found[:, :4], COLOURS[:, :4]) and found[:, 4:].min() == 255
    assert abs(int(np.asarray(open_image(half).rgb()).mean()) - 127) <= 1
    first = saved(tmp_path / "palette.png", palette, transparency=0)
    assert np.asarray(open_image(first).rgb())[0, 0, 0] == 255
    grey = saved(tmp_path / "16.png", Image.fromarray(RAMP.astype(np.uint16) * 257), transparency=0)
    assert np.asarray(open_image(grey).rgb())[0, 0, 0] == 255


def closed() -> Image.Image:
    image = Image.new("RGB", (4, 4))
    image.close()
    return image


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float16), "infinity"),
        (np.array([[0.2, 3.7], [0.1, 12.0]]), "0 to 1, or to 255. Received 0.1 to 12. Tone-map"),
        (np.array([[-1.0, 1.0]]), "x / 2 \\+ 0.5"),
        (np.array([[0, 70000]]), "to 65535. Received 0 to 70000"),
        (np.array([[-3, 4]], np.int8), "Received -3 to 4"),
        (np.array([[1j]]), "complex"),
        (np.array([["a"]]), "must hold numbers"),
        (np.zeros((2, 8, 8, 3), np.uint8), "is one image"),
        (np.zeros((0, 8, 3), np.uint8), "is one image"),
        (np.zeros(8), "is one image"),
        (7, "Received int"),
        ("https://example.org/a.png", "not fetched. Received https://example.org/a.png. Download"),
        (Path("https://example.org/a.png"), "not fetched. Received https://example.org/a.png. Download"),
        ("data:image/png;base64,AAAA", "not fetched. Received data:image"),
        ("x" * 5000, "no path"),
        (closed(), "Load it"),
        (b"", "not an image"),
    ],
)  # fmt: skip
def test_what_has_no_white_is_refused(given, said):
    with pytest.raises(BadPicture, match=said):
        open_image(given).rgb()


def test_what_is_no_image_is_named(tmp_path, monkeypatch):
    whole = saved(
        tmp_path / "whole.png", Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    )
    heads = {
        "a.svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing. Render"),
        "a.heic": (b"\0\0\0\x18ftypheic" + bytes(40), "damaged or unusual HEIC file"),
        "a.mp4": (b"\0\0\0\x18ftypisom" + bytes(40), "a film"),
        "a.jpg": (b"<!DOCTYPE html><html>", "a web page"),
        "a.png": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        "a.exr": (b"\x76\x2f\x31\x01" + bytes(40), "OpenEXR"),
        "a.npy": (b"\x93NUMPY" + bytes(40), "numpy.load"),
        "a.txt": (b"hello", "not an image. Give a PNG, JPEG or WebP"),
        "empty.png": (b"", "0 bytes"),
        "cut.png": (whole.read_bytes()[:4000], "cut.png is a damaged or unusual PNG file"),
    }
    for name, (data, said) in heads.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadPicture, match=said) as error:
            open_image(tmp_path / name)
        assert "Give a PNG" not in str(error.value) or name == "a.txt"
    with pytest.raises(BadPicture, match="is a folder"):
        open_image(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for read in (open_image, read_mask):
        with pytest.raises(BadPicture, match=r"whole.png has more than the 0 million pixels .*MAX_IMAGE_PIXELS"):
            read(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # a warning of Pillow's, which is no error
    assert open_image(whole).size == (64, 64)


def test_of_an_animation_the_first_frame_is_taken_with_a_word_and_none_as_a_mask(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    for name in ("a.gif", "a.tif", "a.png"):
        path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
        picture = Picture.of(path, (16, 16))
        assert tuple(picture.pixels()[0, 0]) == (255, 0, 0) and picture.frames == 3
        assert told(picture.report()) == "16 x 16 pixels (height x width), the first of 3 frames"
        with pytest.raises(BadPicture, match="has 3 frames, and a mask is one"):
            read_mask(path)


def masks(mask: np.ndarray) -> dict[str, object]:
    """The same mask in every way of saving one."""
    white, layer, red = mask.astype(np.uint8) * 255, np.zeros((*mask.shape, 4), np.uint8), np.zeros((*mask.shape, 3))
    layer[mask] = (13, 20, 16, 255)  # painted dark on a clear layer
    red[mask] = (255, 0, 0)
    return {
        "0 and 1": mask.astype(np.uint8),
        "0 and 255": white,
        "booleans": mask,
        "floats": mask.astype(float),
        "soft": mask * 0.9,
        "floats to 255": mask * 255.0,
        "16 bits": white.astype(np.uint16) * 257,
        "1 bit": Image.fromarray(mask),
        "palette": Image.fromarray(mask.astype(np.uint8)).convert("P"),
        "grey of Pillow": Image.fromarray(white),
        "rows": mask.astype(int).tolist(),
        "a tensor": torch.from_numpy(mask)[None],
        "a painted layer": layer,
        "red on black": red.astype(np.uint8),
        "opaque": np.dstack([white, white, white, np.full_like(white, 255)]),
        "clear but where white": np.dstack([white, white]),
    }


@pytest.mark.parametrize("kind", masks(SQUARE))
def test_a_mask_is_read_however_it_is_saved(kind):
    assert np.array_equal(np.array(read_mask(masks(SQUARE)[kind])) > 0, SQUARE)


def test_what_no_mask_is():
    for empty, said in (
        (np.zeros((4, 4)), "highest value is 0 of 1"),
        (np.full((4, 4), 100, np.uint8), "highest value is 100 of 255"),
        (Image.new("RGBA", (4, 4)), "is empty"),
    ):
        with pytest.raises(NoEffect, match=said):
            read_mask(empty)
    for wrong in ([[1], [1, 0]], [1, 0], [["a"]], []):
        with pytest.raises(BadPicture, match="rows of numbers"):
            read_mask(wrong)
    large = np.zeros((600, 4000), bool)
    large[:, :2000] = True
    found = np.array(read_mask(large))
    assert found.shape == (154, 1024) and found[:, :512].all() and not found[:, 512:].any()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("given", [(128, 256), (96, 40), (100, 101), (7, 9)])
def test_a_mask_takes_the_way_of_its_picture(given, fit):
    """The square's own colour is where the mask says, for every shape and method."""
    height, width = given
    mask = np.zeros(given, bool)
    mask[height // 4 : height // 2, width // 3 : width * 2 // 3] = True
    fitting = Fitting(given, (64, 64), fit)
    shown = np.asarray(
        fitting.picture(Image.fromarray(np.where(mask[..., None], 255, 0).repeat(3, -1).astype(np.uint8)))
    )
    found = fitting.mask(mask)
    assert found.shape == (64, 64) and found.any() and not found.all()
    assert ((shown[..., 0] > 127) != found).mean() < 0.04  # cells on the edge
    if fit == "pad":  # but for the padding, which repeats the picture's edge and no mask
        left, top, right, bottom = fitting.place
        assert not found[:top].any() and not found[:, right:].any() and (right - left, bottom - top) != (64, 64)


def test_the_crop_is_pillows():
    from PIL import ImageOps

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 90, 3), np.uint8))
    ours = Fitting((37, 90), (24, 40)).picture(image)
    assert np.array_equal(np.asarray(ours), np.asarray(ImageOps.fit(image, (40, 24), Image.Resampling.LANCZOS)))
    same = Fitting((24, 40), (24, 40)).picture(ours)
    assert same is ours


def test_automatic_sizes_keep_shape_and_area():
    for given in ((128, 256), (3000, 4000), (1080, 1920), (4032, 3024), (33, 100), (1, 1)):
        for usual, unit in (((128, 128), 8), ((512, 512), 8), ((1024, 1024), 16)):
            height, width = automatic(given, usual, unit)
            assert height % unit == width % unit == 0
            assert abs(height * width / (usual[0] * usual[1]) - 1) < 2 * unit / min(height, width)
            assert abs(np.log(width / height * given[0] / given[1])) < unit / min(height, width)
    assert automatic((20, 4000), (512, 512), 8) == (256, 1024)  # at most 4 to 1


def test_a_frame_takes_masks_of_its_picture_and_of_the_result():
    frame = Frame((128, 128), (16, 16), Fitting((128, 256), (128, 128)))
    rows = read_mask(SQUARE)
    found = np.array(frame.mask(rows)) > 0
    assert found.shape == (128, 128) and found[32:96, 32:96].all() and found.sum() == 64 * 64
    small = np.array(frame.mask(read_mask(SQUARE[::8, ::8]))) > 0  # a smaller one of the same shape
    assert np.array_equal(small, found)
    drawn = read_mask(found)
    assert frame.mask(drawn) == drawn and frame.mask(((1.0, 0.0), (0.0, 0.0))) == ((1.0, 0.0), (0.0, 0.0))
    with pytest.raises(BadPicture, match="128 x 128 or 128 x 256 or a scaled one. Received 256 x 128"):
        frame.mask(read_mask(SQUARE.T))
    corner = np.zeros_like(SQUARE)
    corner[:9, :9] = True
    with pytest.raises(NoEffect, match="part of the image that is kept"):
        frame.mask(read_mask(corner))
    with pytest.raises(BadPicture, match="the result, 128 x 128 or"):
        Frame((128, 128), (16, 16)).mask(rows)
    assert np.array(Frame((1024, 1024), (128, 128)).mask(read_mask(np.ones((1024, 1024))))).shape == (256, 256)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_mask_of_a_photo_that_lies_on_its_side(tmp_path, orientation):
    """The mask is drawn over the photo as it is seen, or is that of the file and turned with it."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[2:6, 4:14] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "photo.png", Image.fromarray(stored), exif=exif)
    picture = Picture.of(path, (32, 32), "pad")
    seen = np.asarray(open_image(path).rgb())[..., 0] > 127
    assert picture.turned == orientation and picture.given == seen.shape
    assert Picture.from_text(picture.as_text()) == picture
    frame = Frame((32, 32), (16, 16), picture.fitting)
    wanted = picture.pixels()[..., 0] > 127
    candidates = [seen, *([stored[..., 0] > 127] if orientation in (1, 6, 8) else [])]
    for mask in candidates:
        assert np.array_equal(np.array(frame.mask(read_mask(mask))) > 0, wanted)


def test_a_picture_says_where_its_pixels_come_from():
    picture = Picture.of(np.full((20, 30, 3), 9, np.uint8), (8, 16), "stretch")
    assert picture.as_text().startswith("data:image/webp;given=20x30;fit=stretch;turned=1;frames=1;base64,")
    assert Picture.from_text(picture.as_text()) == picture
    plain = Picture.from_text(picture.as_text().partition("base64,")[2])  # as recipes held it before
    assert plain.given is None and np.array_equal(plain.pixels(), picture.pixels())
    assert plain.report() == {"given": [8, 16], "size": [8, 16], "fit": "crop", "lost": 0.0}
    for wrong in ("data:image/webp;given=0x3;fit=crop;turned=1;frames=1;base64,", "data:image/png;base64,AAAA"):
        with pytest.raises(BadPicture):
            Picture.from_text(wrong)


def test_a_panorama_is_not_cut_to_nothing_unasked():
    panorama = np.zeros((20, 4000, 3), np.uint8)
    with pytest.raises(BadPicture, match=r"20 x 4000 .* 128 x 128 would be 0.5% of it. Ask for size auto"):
        Picture.of(panorama, (128, 128))
    with pytest.raises(BadPicture, match="64 x 256 would be 2.0% of it. Ask for fit pad"):
        Picture.brought(panorama, "auto", None, (128, 128), 8)
    assert Picture.of(panorama, (128, 128), "crop").report()["lost"] == 0.995
    assert Picture.of(panorama, (128, 128), "pad").report()["lost"] == 0


def test_a_png_bomb_is_not_unpacked(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )
    with pytest.raises(BadPicture, match="more than the 179 million pixels"):
        open_image(io.BytesIO(data))

"""Edits put back into originals of full size: what lies outside the change stays, to the last bit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from promptweave.editing.fitting import Fitting
from promptweave.editing.picture import Picture
from promptweave.editing.pixels import BadPicture, open_image
from promptweave.editing.put_back import differing, inward, outward, put_back

NOISE = np.random.default_rng(3).integers(0, 256, (150, 210, 3), np.uint8)
RED = np.array([255, 0, 0], np.uint8)
BOX = np.s_[20:44, 30:50]  # of the result


def edited(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """An edit that paints the box red, and the box as a mask."""
    edit, mask = picture.pixels().copy(), np.zeros(picture.size, bool)
    edit[BOX], mask[BOX] = RED, True
    return edit, mask


def in_original(fitting: Fitting) -> tuple[float, float, float, float]:
    """The box in pixels of the original, worked out by hand: top, bottom, left, right."""
    (height, width), (high, wide) = fitting.given, fitting.size
    if fitting.fit == "stretch":
        down, across, top, left = height / high, width / wide, 0.0, 0.0
    else:
        scale = (min if fitting.fit == "crop" else max)(height / high, width / wide)
        down = across = scale
        top, left = (height - high * scale) / 2, (width - wide * scale) / 2
    edges = top + 20 * down, top + 44 * down, left + 30 * across, left + 50 * across
    return tuple(max(edge, 0) for edge in edges)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64)])
def test_the_edit_lies_where_it_belongs(fit, size):
    picture = Picture.of(NOISE, size, fit, keep=True)
    edit, mask = edited(picture)
    for given in ({"region": mask}, {"source": picture.pixels()}):
        made = put_back(picture.whole(), picture.fitting, edit, **given)
        image = np.asarray(made.image)
        changed = (image != NOISE).any(-1)
        top, bottom, left, right = in_original(picture.fitting)
        rows, columns = np.nonzero(changed)
        down = across = max((bottom - top) / 24, (right - left) / 20)  # pixels of the original for one of the result
        for found, first, last, scale in ((rows, top, bottom, down), (columns, left, right, across)):
            out, within = (1.5, 4 * scale) if "region" in given else (6 * scale, 1)  # where the edge is feathered
            assert first - out <= found.min() <= first + within and last - within <= found.max() + 1 <= last + out
        middle = image[round((top + bottom) / 2), round((left + right) / 2)]
        assert np.array_equal(middle, RED)
        assert abs(made.replaced - changed.mean()) < 0.01  # pixels of that colour may have been there
        assert made.confined == ("region" in given)


def test_a_mask_is_a_promise():
    """No pixel outside of a drawn mask changes, at full size, and most inside do."""
    mask = np.zeros((512, 512), bool)
    mask[100:300, 150:400] = True
    picture = Picture.of(np.zeros((1024, 1536, 3), np.uint8), (512, 512), "stretch", keep=True)
    made = put_back(picture.whole(), picture.fitting, np.full((512, 512, 3), 255, np.uint8), region=mask)
    whole = np.zeros((1024, 1536), bool)
    whole[200:600, 450:1200] = True
    changed = np.asarray(made.image).any(-1)
    assert not changed[~whole].any()
    assert changed[whole].mean() > 0.95


def test_a_thin_mask_still_acts():
    mask = np.zeros((64, 64), bool)
    mask[30:32] = True
    assert (inward(mask, (64, 64)) == mask).all()
    weight = inward(np.eye(8, dtype=bool), (128, 128))
    assert weight.max() == 1 and (weight[:16, 16:] == 0).all()


def test_slight_differences_elsewhere_are_no_edit():
    source = np.full((64, 64, 3), 100, np.uint8)
    edit = source.copy()
    edit[10:20, 10:20] += 15  # slight, connected to nothing
    assert differing(source, edit)[12:18, 12:18].all()  # all that there is
    edit[40:50, 40:50] += 90
    edit[40:50, 50:58] += 15  # slight, beside the change
    found = differing(source, edit)
    assert found[41:49, 41:57].all() and not found[:30].any()
    weight = outward(found)
    assert (weight[found] == 1).all() and weight[:30].max() == 0


def test_at_the_edges_of_a_crop_the_edit_fades():
    picture = Picture.of(np.zeros((64, 200, 3), np.uint8), (64, 64), "crop", keep=True)
    made = put_back(picture.whole(), picture.fitting, np.full((64, 64, 3), 255, np.uint8), region=np.ones((8, 8), bool))
    line = np.asarray(made.image)[32, :, 0]
    assert not line[:69].any() and not line[131:].any() and line[75:125].min() == 255
    assert np.asarray(made.image)[0, 100, 0] == 255  # the original ends here, too
    assert (np.diff(line[66:80].astype(int)) >= 0).all()


def test_alpha_is_kept_and_the_edit_is_seen_through_it():
    alpha = np.full((64, 64), 255, np.uint8)
    alpha[:, :32], alpha[:, 32:40] = 0, 128
    given = np.dstack([np.full((64, 64, 3), 60, np.uint8), alpha])
    picture = Picture.of(given, (64, 64), keep=True)
    edit = np.full((64, 64, 3), 200, np.uint8)
    made = put_back(picture.whole(), picture.fitting, edit, region=np.ones((64, 64), bool))
    found = np.asarray(made.image)
    assert np.array_equal(found[..., 3], alpha)
    assert (found[:, :32, :3] == 60).all()  # nobody sees these
    shown = Image.alpha_composite(Image.new("RGBA", (64, 64), "white"), made.image).convert("RGB")
    assert np.abs(np.asarray(shown)[:, 32:].astype(int) - 200).max() <= 1
    assert made.hidden == 0.5 and "hidden" in made.report()


def test_an_original_of_another_size_is_refused():
    picture = Picture.of(NOISE, (64, 64))
    with pytest.raises(BadPicture, match="150 x 210.*Received 64 x 64"):
        put_back(open_image(picture.pixels()), picture.fitting, picture.pixels(), source=picture.pixels())


def photo(**options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, **options)
    return buffer.getvalue()


def test_an_original_keeps_its_pixels_and_loses_its_secrets():
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker of cameras", 6
    for more in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        given = photo(format="JPEG", exif=exif, comment=b"at home", quality=90, **more)
        picture = Picture.of(given + b"a preview", (64, 64), keep=True)
        assert picture.original is not None and len(picture.original) < len(given)
        assert picture.original.startswith(b"\xff\xd8") and not any(
            secret in picture.original for secret in (b"Maker", b"at home", b"preview")
        )
        again = Picture.from_text(picture.as_text())
        assert again == picture and again.whole().size == (210, 150)
        assert np.array_equal(again.whole().colours(), open_image(given).colours())
    plain = Picture.of(photo(format="WEBP", lossless=True), (64, 64), keep=True)
    assert np.array_equal(plain.whole().colours(), NOISE)

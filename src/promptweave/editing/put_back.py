"""An edit, put back into the original at full size: only what changed is replaced, all other pixels stay as they are.

The model sees the original fitted to its own size (`fitting.Fitting`), and its autoencoder loses detail everywhere. So
the edit is pasted over the original with a weight between 0 and 1: 1 where the image changed, falling to 0 over a
feathered edge. Where the weight is 0, the original's numbers are copied, to the last bit.

What changed is found from the difference between the edit and the source as the model reproduces it: places that
clearly differ, and all around them that differs a little; the edge is feathered outwards. If a region confines the
edit, a local blend's or a drawn mask, no pixel outside of it is touched: its edge is feathered inwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from promptweave.editing.fitting import Fitting
from promptweave.editing.pixels import BadPicture, Opened

if TYPE_CHECKING:
    from promptweave.core.control import Hooks
    from promptweave.editing.recipe import Recipe
    from promptweave.sampling.loop import Sample

FEATHER = 1 / 40  # width of the soft edge, as a fraction of the longer side of the result
GRID = 128  # cells of the longer side of the grid on which a difference is judged
CLEAR, SLIGHT = 0.10, 0.04  # mean difference of the channels, of 1: what changed clearly, and what belongs to it
ALL = 0.995  # of the frame: a change of more is one of everything
LEAST = 0.5 / 255  # a weight below changes no 8-bit number


@dataclass(frozen=True, eq=False)
class PutBack:
    """An original with an edit in it.

    `image`: RGB, or RGBA if the original is transparent somewhere, in the original's size and colour space. `replaced`:
    the fraction of its pixels that the edit touched; all others equal the original's. `of_frame`: the fraction of the
    part that the model saw. `confined`: whether a region confines the edit. `hidden`: the fraction of the touched
    pixels that are fully transparent.
    """

    image: Image.Image
    replaced: float
    of_frame: float
    confined: bool
    hidden: float = 0.0

    def report(self) -> dict[str, Any]:
        """The facts, as JSON values."""
        hidden = {"hidden": round(self.hidden, 4)} if self.hidden else {}
        return {
            "replaced": round(self.replaced, 4),
            "of_frame": round(self.of_frame, 4),
            "confined": self.confined,
            **hidden,
        }


def put_back(
    original: Opened,
    fitting: Fitting,
    edit: np.ndarray,
    *,
    source: np.ndarray | None = None,
    region: np.ndarray | None = None,
) -> PutBack:
    """Paste an edit, uint8 [height, width, 3] in the size of `fitting`, into the original.

    `region`: where it may replace the original, bool [height, width] on any grid that spans the result, such as that of
    the latents. `source`, uint8 [height, width, 3]: the source as the same run reproduced it; what equals it in the
    edit is not replaced. One of the two may be missing. Raises BadPicture for an original or an edit of other sizes
    than those of `fitting`.
    """
    if original.size != fitting.given or edit.shape != (*fitting.size, 3):
        raise BadPicture(
            f"An edit is put back into the image that it was made from, {fitting.given[0]} x {fitting.given[1]} pixels "
            f"(height x width) fitted to {fitting.size[0]} x {fitting.size[1]}. Received {original.size[0]} x "
            f"{original.size[1]} and an edit of {edit.shape[0]} x {edit.shape[1]}."
        )
    if region is None and source is None:
        raise BadPicture("An edit is put back by its region, or by the source to compare it with. Received neither.")
    weight = _rim(fitting)
    if region is not None:
        weight = np.minimum(weight, inward(region, fitting.size))
    if source is not None:
        weight = np.minimum(weight, outward(differing(source, edit)))
    area = _area(fitting)
    left, top, right, bottom = area
    mask = _enlarged(weight, fitting, area)
    mask[mask < LEAST] = 0
    whole = np.array(original.colours())
    inner = whole[top:bottom, left:right]
    new = original.from_srgb(_enlarged_image(edit, fitting, area))
    opacity = original.opacity()
    hidden = 0.0
    if opacity is not None:
        part = opacity[top:bottom, left:right, None].astype(np.float32) / 255
        # the model saw the original on white: what the edit shows there is taken off it again
        shown = new.astype(np.float32) - 255 * (1 - part)
        new = np.divide(shown, part, out=inner.astype(np.float32), where=part > 0).clip(0, 255)
        hidden = float(((mask > 0) & (part[..., 0] == 0)).sum() / max((mask > 0).sum(), 1))
    share = mask[..., None]
    blended = np.rint(inner + share * (new.astype(np.float32) - inner)).clip(0, 255).astype(np.uint8)
    np.copyto(inner, blended, where=share > 0)
    image = Image.fromarray(whole)
    if opacity is not None:
        image.putalpha(Image.fromarray(opacity))
    if original.profile is not None:
        image.info["icc_profile"] = original.profile
    touched = int((mask > 0).sum())
    return PutBack(image, touched / (whole.shape[0] * whole.shape[1]), touched / mask.size, region is not None, hidden)


def in_original(recipe: Recipe, made: Sample, reproduced: np.ndarray | None = None) -> tuple[PutBack, ...]:
    """The original of a recipe's input image with the image of each prompt put back into it; row 0 is the original.

    In an edit of an edit, row 0 is the edit before. Every row then is compared with `reproduced`, uint8 [height, width,
    3], the input image as the autoencoder reproduces it; otherwise with row 0, unless controls confine it to a region.
    """
    picture = recipe.root.picture
    assert picture is not None
    original, fitting, rows = picture.whole(), picture.fitting, made.pictures[:, 0]
    if recipe.base is not None:
        return tuple(put_back(original, fitting, row, source=reproduced) for row in rows)
    nothing = put_back(original, fitting, rows[0], region=np.zeros(fitting.size, bool))
    hooks = made.hooks[: len(recipe.controls)]
    return nothing, *(
        put_back(original, fitting, row, source=rows[0], region=_confined(hooks, number, fitting.size))
        for number, row in enumerate(rows[1:], 1)
    )


def _confined(hooks: Sequence[Hooks], row: int, size: tuple[int, int]) -> np.ndarray | None:
    """The region to which controls confine the image of a prompt, bool of `size`; None if to none."""
    found = [region[0].cpu().numpy() for hook in hooks if (region := hook.confined(row)) is not None]
    if len(found) < 2:
        return found[0] if found else None
    resized = [Image.fromarray(one).resize((size[1], size[0]), Image.Resampling.NEAREST) for one in found]
    return np.logical_and.reduce([np.asarray(one) for one in resized])


def inward(region: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The weight of an edit, float32 of `size`, for a region on a coarser grid: 0 outside, rising to 1 inside of it."""
    cell = max(size[0] / region.shape[0], size[1] / region.shape[1])
    inside = np.asarray(Image.fromarray(region).resize((size[1], size[0]), Image.Resampling.NEAREST))
    # a cell may lie half outside of what was drawn, and enlarging a weight spreads it by half a pixel
    width, rim = max(1, round(FEATHER * max(size))), 1 if cell <= 1 else 1 + ceil(cell / 2)
    depth, left = np.zeros(size, np.float32), np.pad(inside, 1, mode="edge")
    for _ in range(width + rim):
        if not left.any():
            break
        depth += left[1:-1, 1:-1]
        left = np.pad(_box(left, 1)[1:-1, 1:-1] > 1 - 1e-6, 1, mode="edge")
    deepest = float(depth.max())
    if deepest <= rim:  # a thin region has little room for an edge
        return (depth / max(1.0, deepest // 2)).clip(0, 1)
    return ((depth - rim) / min(width, deepest - rim)).clip(0, 1)


def outward(region: np.ndarray) -> np.ndarray:
    """The weight of an edit, float32: 1 in a region, bool [height, width], and falling to 0 around it."""
    width = max(1, round(FEATHER * max(region.shape)))
    grown = _box(region, width) > 1e-6
    half = max(1, width // 2)
    return _box(_box(grown, half), half)


def differing(source: np.ndarray, edit: np.ndarray) -> np.ndarray:
    """Where two images, uint8 [height, width, 3], differ: bool [height, width].

    The places that differ clearly, and whatever differs slightly and is connected to them: a change has soft borders,
    but slight differences elsewhere, of colour or noise, are no edit. Without clear places it is all that differs.
    """
    height, width = edit.shape[:2]
    difference = np.abs(source.astype(np.float32) - edit.astype(np.float32)).mean(-1) / 255
    scale = min(1.0, GRID / max(height, width))
    grid = max(1, round(height * scale)), max(1, round(width * scale))
    coarse = np.asarray(Image.fromarray(difference).resize((grid[1], grid[0]), Image.Resampling.BOX))
    coarse = _box(coarse, 1)
    slight, found = coarse > SLIGHT, coarse > CLEAR
    if not found.any():
        found = slight
    while True:  # flood from the clear places
        grown = (_box(found, 1) > 1e-6) & slight | found
        if np.array_equal(grown, found):
            break
        found = grown
    return np.asarray(Image.fromarray(found).resize((width, height), Image.Resampling.NEAREST))


def _box(values: np.ndarray, radius: int) -> np.ndarray:
    """The mean over squares of 2 radius + 1 pixels, float32; edges are repeated."""
    total = values.astype(np.float64)
    for axis in (0, 1):
        around = [(0, 0), (0, 0)]
        around[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(total, around, mode="edge"), axis)
        size, step = total.shape[axis], 2 * radius + 1
        ends, starts = np.take(sums, range(step, step + size), axis), np.take(sums, range(size), axis)
        total = (ends - starts) / step
    return total.astype(np.float32)


def _area(fitting: Fitting) -> tuple[int, int, int, int]:
    """The whole pixels of the original that the model saw: left, top, right, bottom."""
    left, top, right, bottom = fitting.box
    slack = 1e-6
    return ceil(left - slack), ceil(top - slack), floor(right + slack), floor(bottom + slack)


def _rim(fitting: Fitting) -> np.ndarray:
    """The weight at the edges of the frame: it falls to 0 where the original goes on beyond them."""
    (height, width), (left, top, right, bottom) = fitting.given, fitting.box
    high, wide = fitting.size
    soft = max(1, round(FEATHER * max(high, wide)))
    lines = [
        _ramp(length, soft, before > 0.5, after < end - 0.5)
        for length, before, after, end in ((high, top, bottom, height), (wide, left, right, width))
    ]
    return np.minimum(lines[0][:, None], lines[1][None])


def _ramp(length: int, soft: int, start: bool, end: bool) -> np.ndarray:
    place = np.arange(length, dtype=np.float32)
    rising = (place / soft).clip(0, 1) if start else np.ones(length, np.float32)
    return np.minimum(rising, rising[::-1] if start and end else (place[::-1] / soft).clip(0, 1)) if end else rising


def _seen(fitting: Fitting, area: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    """Where whole pixels of the original lie in the result."""
    box, place = fitting.box, fitting.place
    scale = (place[2] - place[0]) / (box[2] - box[0]), (place[3] - place[1]) / (box[3] - box[1])
    edges = [place[i % 2] + (edge - box[i % 2]) * scale[i % 2] for i, edge in enumerate(area)]
    limits = fitting.size[1], fitting.size[0]
    left, top, right, bottom = (min(max(edge, 0.0), float(limits[i % 2])) for i, edge in enumerate(edges))
    return left, top, right, bottom


def _enlarged(weight: np.ndarray, fitting: Fitting, area: tuple[int, int, int, int]) -> np.ndarray:
    size = area[2] - area[0], area[3] - area[1]
    image = Image.fromarray(weight.astype(np.float32))
    return np.array(image.resize(size, Image.Resampling.BILINEAR, box=_seen(fitting, area)))


def _enlarged_image(edit: np.ndarray, fitting: Fitting, area: tuple[int, int, int, int]) -> np.ndarray:
    size = area[2] - area[0], area[3] - area[1]
    box = _seen(fitting, area)
    if size == (edit.shape[1], edit.shape[0]) and box == (0, 0, *size):
        return edit
    return np.asarray(Image.fromarray(edit).resize(size, Image.Resampling.LANCZOS, box=box))

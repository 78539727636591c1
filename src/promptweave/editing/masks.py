"""Masks as people bring them, and their way into the frame of the result: the one that their image takes.

What counts as white: more than half of the white of the numbers' range (`pixels.white`), or of 1 if none is larger than
1, so that masks saved as 0 and 1 count; of colours the brightest channel. A transparent pixel is outside; of an opaque
one its brightness counts, or if all opaque ones are dark (a drawn layer) the pixel itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from promptweave.core.fields import options_of
from promptweave.core.shown import shown
from promptweave.core.typed import checked
from promptweave.editing.fitting import Fitting, covered, upright
from promptweave.editing.pixels import BadPicture, Opened, open_image, white

if TYPE_CHECKING:  # torch, which the command line loads only if it must
    from promptweave.core.mask import Mask
    from promptweave.editing.recipe import Recipe
    from promptweave.models.base import Model

LONGEST = 1024  # cells a side of a mask that was read
FITTED = 256  # cells a side of one in a recipe, unless the latents have more
NEAR = 0.01  # by which the shapes of a mask and its image may differ, as a logarithm
Fitted = TypeVar("Fitted")


@checked
def read_mask(given: Any, name: str = "The mask") -> tuple[tuple[float, ...], ...]:
    """A mask as rows of zeros and ones, at most 1024 a side, for controls such as `LocalBlend(mask=read_mask(path))`.

    `given`: a path, a Pillow image, an array, a tensor or rows of numbers; see above for what counts as white. Raises
    FileNotFoundError, BadPicture for what is no mask, NoEffect for one that is empty.
    """
    found = in_mask(_opened(given, name))
    longest = max(found.shape)
    if longest > LONGEST:
        height, width = (max(1, round(side * LONGEST / longest)) for side in found.shape)
        found = covered(found, (height, width))
    return rows(found)


def rows(mask: np.ndarray) -> Mask:
    """A mask, bool [height, width], as rows of zeros and ones."""
    return tuple(map(tuple, mask.astype(float).tolist()))


def in_mask(opened: Opened) -> np.ndarray:
    """Where an image is white enough, bool [height, width]. Raises NoEffect if nowhere."""
    values = opened.values
    if opened.frames > 1:
        raise BadPicture(f"{opened.name} has {opened.frames} frames, and a mask is one. Save the one that you mean.")
    top = white(values, opened.name)
    highest = values.max()
    bright = values.max(-1) > (1 if highest <= 1 else top) / 2
    found = bright
    if opened.alpha is not None:
        opaque = opened.alpha > white(opened.alpha) / 2
        found = opaque & bright if (opaque & bright).any() else opaque
    if not found.any():
        from promptweave.core.control import NoEffect  # needs torch

        raise NoEffect(
            f"{opened.name} is empty: a mask is white, or 1, where the image may change. Its highest value is "
            f"{float(highest):g} of {1 if highest <= 1 else top}. Paint it white, or give it in 0 and 1."
        )
    return found


def _opened(given: Any, name: str) -> Opened:
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        lengths = {len(row) if isinstance(row, Sequence) else 0 for row in given}
        if len(lengths) != 1 or 0 in lengths:
            raise BadPicture(
                f"{name} has rows of numbers, all of one length. Received {len(given)} of {len(lengths)} lengths."
            )
        try:
            given = np.asarray(given, float)
        except (ValueError, TypeError, RecursionError) as error:
            raise BadPicture(f"{name} has rows of numbers. Received {shown(given)}.") from error
    return open_image(given, name)


@dataclass(frozen=True)
class Frame:
    """The shapes that a mask may have: of the result, `size` (height, width) in pixels, whose latents have `grid`
    cells, and of the input image, which `fitting` brings into that size."""

    size: tuple[int, int]
    grid: tuple[int, int]
    fitting: Fitting | None = None

    @classmethod
    def of(cls, recipe: Recipe, model: Model) -> Frame:
        """The frame of a run."""
        from promptweave.sampling.loop import latent_grid

        picture = recipe.root.picture
        size = recipe.size or model.default_size
        return cls(size, latent_grid(model, size), None if picture is None else picture.fitting)

    def mask(self, mask: Mask, name: str = "The mask") -> Mask:
        """The mask in the frame of the result: it takes the way of the input image if it has its shape.

        One that has the shape of the result is only reduced. A mask in the shape of an image as it is stored sideways
        is turned with it. Raises BadPicture for other shapes, NoEffect if nothing of it is in the frame.
        """
        shape, fitting = (len(mask), len(mask[0])), self.fitting
        ways: list[tuple[float, int]] = []
        for way, other in enumerate(self._shapes()):
            distance = abs(log(shape[1] / shape[0] * other[0] / other[1]))
            if distance <= NEAR or abs(shape[1] * other[0] - shape[0] * other[1]) <= max(other):  # or within a cell
                ways.append((round(distance, 6), way))
        if not ways:
            raise BadPicture(self._unfit(shape, name))
        _, way = min(ways)
        found = np.asarray(mask, np.float32) > 0.5
        painted = found.any()  # the control says what is wrong with a mask that is black
        if fitting is not None and way:
            found = fitting.mask(upright(found, fitting.turned) if way == 2 else found)
        if painted and not found.any():
            from promptweave.core.control import NoEffect

            raise NoEffect(
                f"{name} has nothing white in the part of the image that is kept. Keep more of it: size auto, fit pad "
                "or fit stretch."
            )
        cells = self.cells
        return rows(covered(found, cells) if found.shape[0] > cells[0] or found.shape[1] > cells[1] else found)

    @property
    def cells(self) -> tuple[int, int]:
        """The largest mask that a recipe keeps: whole parts of the latents' cells, at most pixels."""
        height, width = self.grid
        parts = max(1, min(FITTED // max(height, width), self.size[0] // height))
        return height * parts, width * parts

    def _shapes(self) -> list[tuple[int, int]]:
        """The result's, the input image's, and that of the file if it is stored sideways."""
        if self.fitting is None:
            return [self.size]
        given, sideways = self.fitting.given, self.fitting.turned > 4
        return [self.size, given, *([(given[1], given[0])] if sideways else [])]

    def _unfit(self, shape: tuple[int, int], name: str) -> str:
        said = [f"{height} x {width}" for height, width in self._shapes()]
        whose = (
            "that of the result" if self.fitting is None else "that of the input image as it was given, or the result's"
        )
        return (
            f"{name} has the shape (height x width) of its image: {whose}, {' or '.join(dict.fromkeys(said))} or "
            f"a scaled one. Received {shape[0]} x {shape[1]}. Draw it over that image."
        )


def fitted(control: Fitted, frame: Frame) -> Fitted:
    """A control whose masks, the options that are declared so, are in the frame of the result."""
    changes: dict[str, Any] = {}
    for name in given_masks(control):
        value, label = getattr(control, name), f"{name} of {type(control).__name__}"
        several = isinstance(value[0][0], Sequence)
        changes[name] = tuple(frame.mask(one, label) for one in value) if several else frame.mask(value, label)
    return replace(control, **changes) if changes else control  # pyright: ignore[reportArgumentType]


def with_controls(recipe: Recipe, controls: Sequence[Any], model: Model) -> Recipe:
    """The recipe with these controls, whose masks go the way of its input image."""
    frame = Frame.of(recipe, model) if any(map(given_masks, controls)) else None
    return replace(recipe, controls=tuple(controls if frame is None else (fitted(one, frame) for one in controls)))


def given_masks(control: Any) -> list[str]:
    """The fields of a control that hold masks."""
    try:
        listed = options_of(type(control))
    except (TypeError, NameError):  # a control of one's own without options
        return []
    return [one.name for one in listed if one.option.mask and getattr(control, one.name)]


def with_read_mask(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `edit` whose mask, however it was given, is rows of zeros and ones."""
    mask = options.get("mask")
    return dict(options) if mask is None else {**options, "mask": read_mask(mask)}

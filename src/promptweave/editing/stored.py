"""What a file of a run says of it, as foreign data: checked whole before a model is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from promptweave.editing.computed import Computed
from promptweave.editing.drawn_sheet import SHEET, refuse_sheet
from promptweave.editing.recipe import KEY, BrokenRecipe, Recipe, parse
from promptweave.editing.values import BadValue, read_value


@dataclass(frozen=True, eq=False)
class Stored:
    """A saved image: uint8 `pixels` [height, width, 3], the row `prompt` and the image `image` of a run of `recipe`.

    `versions`: of the packages that made it; `machine`: what of the machine decides how sums round; `hash`: of the
    model's weights. `computed`: in which forward passes. `sheet`: whether the image is the comparison of the run,
    `plain`: whether it is that without controls.
    """

    recipe: Recipe
    versions: Mapping[str, str]
    hash: str
    prompt: int
    image: int
    pixels: np.ndarray
    machine: Mapping[str, str] = field(default_factory=dict[str, str])
    computed: Computed = Computed()
    sheet: bool = False
    plain: bool = False


def read_record(path: Path | str) -> dict[str, Any]:
    """Read the record of a saved PNG or an edit.json. Raises FileNotFoundError and BrokenRecipe."""
    return _read(path, pixels=False)[0]


def read_stored(path: Path | str, *, allow_modules: Sequence[str] = ()) -> Stored:
    """Read a saved PNG with its record. `allow_modules`: modules of your own controls that may be imported.

    Raises FileNotFoundError, BrokenRecipe, and DrawnSheet for a sheet. Nothing else is read, and nothing that the
    record names.
    """
    record, pixels = _read(path, pixels=True)
    if "picture" not in record or pixels is None:
        raise BrokenRecipe(f"{path} holds no image to compare with. Replay a PNG of that run.")
    try:
        parts = {
            name: read_value(kind, record.get(name), name)
            for name, kind in (("recipe", Mapping[str, Any]), ("model", Mapping[str, str]),
                               ("picture", Mapping[str, int]), ("versions", Mapping[str, str]))
        }  # fmt: skip
        place = [read_value(int, parts["picture"].get(name), f"picture.{name}") for name in ("prompt", "image")]
        hash = read_value(str, parts["model"].get("hash"), "model.hash")
        sheet, plain = (
            read_value(int, parts["picture"].get(name, 0), f"picture.{name}") != 0 for name in ("sheet", "plain")
        )
        machine = read_value(Mapping[str, str], record.get("machine", {}), "machine")
        computed = Computed.from_dict(record.get("computed", {}))
    except BadValue as error:
        raise BrokenRecipe(f"The record of {path} cannot be read: {error}") from error
    recipe = Recipe.from_dict(record["recipe"], allow_modules=allow_modules)
    for name, value, count in (("prompt", place[0], len(recipe.prompts)), ("image", place[1], recipe.images)):
        if not 0 <= value < count:
            raise BrokenRecipe(f"picture.{name} must be one of {count}, counted from 0. Received {value}.")
    return Stored(recipe, parts["versions"], hash, place[0], place[1], pixels, machine, computed, sheet, plain)


def _read(path: Path | str, *, pixels: bool) -> tuple[dict[str, Any], np.ndarray | None]:
    """The record of a file and, if asked, the pixels of a PNG."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Give the path of a saved PNG or edit.json.")
    if path.suffix == ".json":
        return parse(path.read_bytes()), None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as image:
                text, drawn = image.info.get(KEY), image.info.get(SHEET)
                found = np.asarray(image.convert("RGB")) if pixels and text else None
    except Exception as error:  # any error of the decoder on a damaged or hostile file
        raise BrokenRecipe(f"{path} cannot be read as an image: {error}. Give a PNG that promptweave saved.") from error
    if drawn and not text:
        refuse_sheet(path, str(drawn))
    if not text:
        raise BrokenRecipe(f"{path} carries no recipe. Give a PNG as promptweave saved it: other programs drop it.")
    return parse(str(text)), found

"""Uploads from untrusted visitors: size, format and number of pixels are checked before decoding."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from promptweave.apps.web.limits import Limits
from promptweave.editing.picture import upright
from promptweave.editing.recipe import KEY, BrokenRecipe, Recipe, parse

KINDS = ("PNG", "JPEG", "WEBP")


class BadUpload(ValueError):
    """The page does not accept this file."""


@dataclass(frozen=True, eq=False)
class Upload:
    """An image; if promptweave saved it, also its recipe and record."""

    picture: Image.Image
    recipe: Recipe | None = None
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_upload(path: Path | str, limits: Limits | None = None) -> Upload:
    """Read a PNG, JPEG or WebP file. Raises BadUpload and BrokenRecipe."""
    path, limits = Path(path), limits or Limits()
    size = path.stat().st_size
    if size > limits.upload_bytes:
        raise BadUpload(
            f"An upload may have at most {limits.upload_bytes / 1e6:.0f} MB. This one has {size / 1e6:.1f} MB. "
            "Send a smaller file."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=KINDS) as image:
                pixels = image.width * image.height
                if pixels > limits.upload_pixels:
                    raise BadUpload(
                        f"An image may have at most {limits.upload_pixels / 1e6:.0f} million pixels. This one has "
                        f"{image.width} x {image.height}. Send a smaller one."
                    )
                image.load()  # also finds text chunks after the pixels
                text = image.info.get(KEY) if image.format == "PNG" else None
                picture = upright(image)
    except BadUpload:
        raise
    except UnidentifiedImageError as error:
        raise BadUpload("An upload must be a PNG, JPEG or WebP image. This file is not. Choose another.") from error
    except Exception as error:  # any error of the decoder on a broken or hostile file
        raise BadUpload("This image cannot be decoded; the file is damaged. Choose another.") from error
    if not text:
        return Upload(picture)
    record, recipe = _recipe(text)
    limits.check(recipe)
    recipe.check()
    return Upload(picture, recipe, record)


def _of_the_library(recipe: Recipe | None) -> None:
    """Reject controls that are not the library's: an upload must not create others."""
    while recipe is not None:
        for control in recipe.controls:
            if not type(control).__module__.startswith("promptweave.methods"):
                raise BrokenRecipe(f"The image was made with {type(control).__name__}, which this page does not have.")
        recipe = recipe.base


def _recipe(text: str) -> tuple[dict[str, Any], Recipe]:
    try:
        record = parse(text)
        if not isinstance(record.get("recipe"), Mapping):
            raise BrokenRecipe("The image's record has no recipe. Generate the image anew.")
        recipe = Recipe.from_dict(record["recipe"])
        _of_the_library(recipe)
        if not isinstance(recipe.source, str) or not all(isinstance(p, str) for p in recipe.targets):
            raise BrokenRecipe("The prompts in the image's recipe are not text. Generate the image anew.")
        return record, recipe
    except ValueError:
        raise
    except (RecursionError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BrokenRecipe("The image's recipe cannot be read. Generate the image anew.") from error

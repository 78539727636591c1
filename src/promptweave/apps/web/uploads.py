"""Uploads from untrusted visitors: size, format and number of pixels are checked before decoding."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from promptweave.apps.web.limits import Limits
from promptweave.core.fields import options_of
from promptweave.editing.pixels import Opened, open_image
from promptweave.editing.recipe import KEY, BrokenRecipe, Recipe, parse

KINDS = ("PNG", "JPEG", "WEBP")


class BadUpload(ValueError):
    """The page does not accept this file."""


@dataclass(frozen=True, eq=False)
class Upload:
    """An image; if promptweave saved it, also its recipe and record. `opened`: the same with all that its file has."""

    picture: Image.Image
    opened: Opened
    recipe: Recipe | None = None
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_upload(path: Path | str, limits: Limits | None = None) -> Upload:
    """Read a PNG, JPEG or WebP file. Raises BadUpload and BrokenRecipe."""
    limits = limits or Limits()
    picture, text = decoded(path, most_bytes=limits.upload_bytes, most_pixels=limits.upload_pixels)
    opened = open_image(Path(path).read_bytes(), "Your image")
    if not text:
        return Upload(opened.rgb(), opened)
    record, recipe = _recipe(text)
    limits.check(recipe)
    recipe.check()
    return Upload(picture.convert("RGB"), opened, recipe, record)


def decoded(data: Path | str | bytes, *, most_bytes: int, most_pixels: int) -> tuple[Image.Image, Any]:
    """An image of a stranger, and the recipe's text if it has one: all bounds are checked before it is decoded.

    Raises BadUpload for too many bytes, pixels or frames, for texts that unpack to megabytes, for other formats and
    for files that are no images.
    """
    size = len(data) if isinstance(data, bytes) else Path(data).stat().st_size
    if size > most_bytes:
        raise BadUpload(
            f"An upload may have at most {most_bytes / 1e6:.0f} MB. This one has {size / 1e6:.1f} MB. "
            "Send a smaller file."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=KINDS) as image:
                if image.width * image.height > most_pixels:
                    raise BadUpload(
                        f"An image may have at most {most_pixels / 1e6:.0f} million pixels. This one has "
                        f"{image.width} x {image.height}. Send a smaller one."
                    )
                frames = getattr(image, "n_frames", 1) if image.format in ("PNG", "WEBP") else 1
                if frames > 1:
                    raise BadUpload(f"An upload is one image. This one has {frames} frames. Send one of them.")
                image.load()  # also finds text chunks after the pixels
                return image, image.info.get(KEY) if image.format == "PNG" else None
    except BadUpload:
        raise
    except UnidentifiedImageError as error:
        raise BadUpload("An upload must be a PNG, JPEG or WebP image. This file isn't one. Choose another.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadUpload(
            f"An image may have at most {most_pixels / 1e6:.0f} million pixels. This one has more. Send a smaller one."
        ) from error
    except Exception as error:  # any error of the decoder on a broken or hostile file
        if "MAX_TEXT" in str(error):
            raise BadUpload("The texts in this PNG unpack to megabytes. Save it without them.") from error
        raise BadUpload("This image cannot be decoded; the file is damaged. Choose another.") from error


def _of_the_library(recipe: Recipe | None) -> None:
    """Reject controls that are not the library's, and those that read a file: an upload must not have either."""
    while recipe is not None:
        for control in recipe.controls:
            if not type(control).__module__.startswith("promptweave.methods"):
                raise BrokenRecipe(f"The image was made with {type(control).__name__}, which this page does not have.")
            for listed in options_of(type(control)):
                if listed.option.metavar == "FILE" and isinstance(getattr(control, listed.name), str | Path):
                    raise BrokenRecipe(
                        f"The image was made with a file ({listed.name} of {type(control).__name__}), and this page "
                        "opens no files for a recipe. Replay it on the command line."
                    )
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

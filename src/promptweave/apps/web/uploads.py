"""Files that a stranger sends: checked by size, by kind and by number of pixels before anything is decoded."""

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
    """A file that the page does not take."""


@dataclass(frozen=True, eq=False)
class Upload:
    """A picture, and the recipe and the whole record that it carries if promptweave saved it."""

    picture: Image.Image
    recipe: Recipe | None = None
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_upload(path: Path | str, limits: Limits | None = None) -> Upload:
    """A PNG, JPEG or WebP file."""
    path, limits = Path(path), limits or Limits()
    size = path.stat().st_size
    if size > limits.upload_bytes:
        raise BadUpload(
            f"An upload may have {limits.upload_bytes / 1e6:.0f} MB. This one has {size / 1e6:.1f} MB. Send a smaller."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=KINDS) as image:
                pixels = image.width * image.height
                if pixels > limits.upload_pixels:
                    raise BadUpload(
                        f"A picture may have {limits.upload_pixels / 1e6:.0f} million pixels. This one has "
                        f"{image.width} x {image.height}. Send a smaller one."
                    )
                image.load()  # which may find a text behind the pixels
                text = image.info.get(KEY) if image.format == "PNG" else None
                picture = upright(image)
    except BadUpload:
        raise
    except UnidentifiedImageError as error:
        raise BadUpload("An upload must be a PNG, JPEG or WebP picture. This file is none.") from error
    except Exception as error:  # whatever a broken or hostile file makes of the decoder
        raise BadUpload("This picture cannot be read: it is broken, or it is not what it says.") from error
    if not text:
        return Upload(picture)
    record, recipe = _recipe(text)
    limits.check(recipe)
    recipe.check()
    return Upload(picture, recipe, record)


def _of_the_library(recipe: Recipe | None) -> None:
    """A stranger's recipe may not make controls of the host's own."""
    while recipe is not None:
        for control in recipe.controls:
            if not type(control).__module__.startswith("promptweave.methods"):
                raise BrokenRecipe(
                    f"The picture was made with {type(control).__name__}, which this page does not have."
                )
        recipe = recipe.base


def _recipe(text: str) -> tuple[dict[str, Any], Recipe]:
    try:
        record = parse(text)
        if not isinstance(record.get("recipe"), Mapping):
            raise BrokenRecipe("The picture's record holds no recipe.")
        recipe = Recipe.from_dict(record["recipe"])
        _of_the_library(recipe)
        if not isinstance(recipe.source, str) or not all(isinstance(p, str) for p in recipe.targets):
            raise BrokenRecipe("The prompts of the picture's recipe are no text.")
        return record, recipe
    except ValueError:
        raise
    except (RecursionError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BrokenRecipe("The picture's recipe cannot be read. Generate the picture anew.") from error

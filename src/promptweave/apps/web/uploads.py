"""Files that a stranger sends: checked by size, by kind and by number of pixels before anything is decoded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from promptweave.apps.web.limits import Limits
from promptweave.recipe import KEY, BrokenRecipe, Recipe, parse

SIGNATURE = b"\x89PNG\r\n\x1a\n"
FOREIGN = (
    "This picture carries no recipe of promptweave's. Editing a photo needs inversion, which promptweave does not have "
    "yet: generate a picture here, or upload a PNG that promptweave saved and nobody has edited since."
)


class BadUpload(ValueError):
    """A file that the page does not take."""


def read_upload(path: Path | str, limits: Limits | None = None) -> tuple[Recipe, dict[str, Any], Image.Image]:
    """The recipe, the whole record and the picture of an uploaded PNG."""
    path, limits = Path(path), limits or Limits()
    size = path.stat().st_size
    if size > limits.upload_bytes:
        raise BadUpload(
            f"An upload may have {limits.upload_bytes / 1e6:.0f} MB. This one has {size / 1e6:.1f} MB. Send a smaller."
        )
    with path.open("rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise BadUpload("An upload must be a PNG that promptweave saved. This file is no PNG.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as image:
                pixels = image.width * image.height
                if pixels > limits.upload_pixels:
                    raise BadUpload(
                        f"A picture may have {limits.upload_pixels / 1e6:.0f} million pixels. This one has "
                        f"{image.width} x {image.height}. Send a smaller one."
                    )
                text = image.info.get(KEY)
                picture = image.convert("RGB")
                text = text or image.info.get(KEY)
    except BadUpload:
        raise
    except Exception as error:  # whatever a broken or hostile file makes of the decoder
        raise BadUpload("This PNG cannot be read: it is broken, or it is not what it says.") from error
    if not text:
        raise BadUpload(FOREIGN)
    record, recipe = _recipe(text)
    limits.check(recipe)
    recipe.check()
    return recipe, record, picture


def _recipe(text: str) -> tuple[dict[str, Any], Recipe]:
    try:
        record = parse(text)
        if not isinstance(record.get("recipe"), Mapping):
            raise BrokenRecipe("The picture's record holds no recipe.")
        recipe = Recipe.from_dict(record["recipe"])
        if not isinstance(recipe.source, str) or not all(isinstance(p, str) for p in recipe.targets):
            raise BrokenRecipe("The prompts of the picture's recipe are no text.")
        return record, recipe
    except ValueError:
        raise
    except (RecursionError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BrokenRecipe("The picture's recipe cannot be read. Generate the picture anew.") from error

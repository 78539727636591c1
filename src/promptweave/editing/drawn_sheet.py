"""Sheets: images that are drawn from runs, and say so in their metadata, so that `replay` can tell how to make them."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from promptweave.core.files import Write

SHEET = "promptweave-sheet"  # the PNG's text chunk; that of a recipe would let the page take it for a run
LONGEST = 4000  # characters of a file of anybody that are printed


class DrawnSheet(ValueError):
    """An image that was drawn from runs or from what they attended to; it has no recipe of its own."""


def sheet_writer(image: Image.Image, what: str, again: str) -> Write:
    """Write a sheet as a PNG that says what it is, "a sweep of ...", and how to make it again."""
    info = PngInfo()
    info.add_itxt(SHEET, json.dumps({"what": what, "again": again}))
    return lambda path: image.save(path, "PNG", pnginfo=info)


def refuse_sheet(path: Path, text: str) -> None:
    """Raise DrawnSheet, which says what an image is and how to make it again, for the text of a sheet."""
    try:
        said = json.loads(text)
        what, again = (str(said[name]) for name in ("what", "again"))
    except (ValueError, TypeError, KeyError, RecursionError):
        what, again = "a sheet, whose text is damaged", "run the command that wrote it"
    raise DrawnSheet(
        f"A single image of a run can be replayed. {path} is {what:.{LONGEST}}. Make it again: {again:.{LONGEST}}"
    )

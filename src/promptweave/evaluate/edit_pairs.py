"""What a data set of edits holds, one `EditPair` an edit, whoever published it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from promptweave.core.shown import brief, short, shown


class BadData(ValueError):
    """A data set that is not complete, or not in its standard layout; the message says which rule it breaks."""


@dataclass(frozen=True, eq=False)
class EditPair:
    """An edit to be made: its prompts, and what the data set knows of the image.

    `name`: unique in the data set, used for files; `category`: the kind of edit. `source`, `target`: prompts. `image`:
    the file of the source, or what it holds; None if it is to be generated. `instruction`: the edit as a command.
    `words`: the words of source and target that the edit is about. `mask()`: bool [height, width] in the image's shape,
    of any size, True where the edit may change the image; None if there is none. `framed`: whether the data set's own
    evaluation puts the outermost pixels into the mask (`pie_bench.framed`). `goal`: the file of the edited image that
    people made, if there is one. `note`: what a reader had to make up.
    """

    name: str
    category: str
    source: str
    target: str
    image: Path | bytes | None = None
    instruction: str = ""
    words: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    mask: Callable[[], np.ndarray] | None = None
    framed: bool = False
    goal: Path | None = None
    note: str = ""

    def __repr__(self) -> str:
        return brief(self, self.name, self.category, f"{short(self.source)} -> {short(self.target)}")

    @property
    def picture(self) -> Path | Image.Image | None:
        """The image of the source, as `edit` takes it."""
        return Image.open(io.BytesIO(self.image)) if isinstance(self.image, bytes) else self.image


def mask_file(path: Path, *, transparent: bool = False) -> np.ndarray:
    """A mask, bool [height, width], from an image: where it is white; or with `transparent` where it lets through.

    Raises BadData for a file that is no image.
    """
    try:
        with Image.open(path) as image:
            if transparent and "A" in image.getbands():
                return np.asarray(image.getchannel("A")) < 128
            return np.asarray(image.convert("L")) > 127
    except OSError as error:
        raise BadData(f"A mask is an image, white where the edit may change it. {path} cannot be read.") from error


def read_object(path: Path) -> Any:
    """What a JSON file holds. Raises FileNotFoundError, and BadData for one that is no JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no file {path}. Check the path.") from error
    except ValueError as error:
        raise BadData(f"{path} is not JSON ({error}). Unpack it again.") from error


def check_names(pairs: list[EditPair], where: Path) -> list[EditPair]:
    """The pairs. Raises BadData if there are none, or two of one name."""
    if not pairs:
        raise BadData(f"{where} holds no edits. Check the path.")
    seen: set[str] = set()
    for pair in pairs:
        if (
            not pair.name.isprintable()
            or set(pair.name) & set("/\\")
            or pair.name[:1] in ("", ".")
            or len(pair.name) > 120
        ):
            raise BadData(
                f"The name of an edit is also that of its files: no slashes, no dot first, at most 120 characters. "
                f"Received {shown(pair.name)} in {where}."
            )
        if pair.name in seen:
            raise BadData(f"Names of edits must be unique in {where}. Received {pair.name!r} twice.")
        seen.add(pair.name)
    return pairs

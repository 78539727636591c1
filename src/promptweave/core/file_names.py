"""Names of files that are made of words: safe on every system, and no two the same."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

LONGEST = 100  # bytes of a name; file systems end at 255
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # by Windows


def new_name(text: str, ending: str, taken: Iterable[str] = ()) -> str:
    """A file name of `text`: letters and digits of any script, `-`, `_` and `.` stay, all else becomes a dash.

    Names are cut to a length that file systems take; one that is among `taken` gets a number.
    """
    kept = re.sub(r"[^\w.\-]+", "-", text).strip("-. ")
    kept = kept.encode("utf-8")[:LONGEST].decode("utf-8", "ignore").strip("-. ") or "file"
    kept = f"_{kept}" if RESERVED.match(kept) else kept
    known = {each.lower() for each in taken}  # for some systems, letters of both cases are the same
    name, number = kept + ending, 1
    while name.lower() in known:
        number += 1
        name = f"{kept}-{number}{ending}"
    return name


def numbered(path: Path) -> Path:
    """The path if nothing or an empty folder is there, or else the first such of `name-2`, `name-3`, ..."""
    number, found = 1, path
    while found.is_file() or (found.is_dir() and any(found.iterdir())):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found

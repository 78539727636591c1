"""Pictures that are written only where they changed, and a list of those that are up to date, so that a run resumes."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
DONE = ROOT / "out" / "pictures.json"  # name -> fingerprint of what made it
NEAR = 12  # of 255: how far compression alone may move the mean colour of SQUARE x SQUARE pixels
SQUARE = 4


def fingerprint() -> str:
    """Of all that makes pictures: the library with its weights, and these scripts."""
    parts = [*(ROOT / "src").rglob("*"), *FOLDER.glob("*.py"), *(ROOT / "examples").glob("*.py")]
    found = hashlib.sha256()
    for path in sorted(part for part in parts if part.is_file() and "__pycache__" not in part.parts):
        found.update(f"{path.relative_to(ROOT)}".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def put(picture: Image.Image, path: Path) -> bool:
    """Write a picture as WebP, unless the file shows the same. Returns whether it was written."""
    coded = io.BytesIO()
    picture.convert("RGB").save(coded, "WEBP", quality=88)
    if path.exists():
        new, old = (Image.open(one).convert("RGB") for one in (coded, path))
        means = [np.asarray(image.reduce(SQUARE)).astype(int) for image in (new, old)]
        if new.size == old.size and np.abs(means[0] - means[1]).max() <= NEAR:
            return False
    path.write_bytes(coded.getvalue())
    return True


@dataclass(frozen=True)
class Progress:
    """What was made by the code as it is; kept in `DONE`, so that a run that was stopped goes on."""

    now: str

    def has(self, name: str) -> bool:
        """Whether a picture is up to date."""
        return _read().get(name) == self.now

    def note(self, name: str) -> None:
        """Note that it is."""
        DONE.parent.mkdir(exist_ok=True)
        DONE.write_text(json.dumps(_read() | {name: self.now}, indent=1))


def _read() -> dict[str, str]:
    return json.loads(DONE.read_text()) if DONE.exists() else {}

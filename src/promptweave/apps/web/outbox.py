"""Files for download: a visitor's last ones stay while the visitor does; those of the API have an age."""

from __future__ import annotations

import secrets
import weakref
from collections import deque
from pathlib import Path
from shutil import rmtree
from typing import Any

from promptweave.apps.web.folder import page_folder

LAST = 3  # the image on the page, its report, and the image before


class Outbox:
    """Subfolders for downloads. `kept`: those of visitors who are there."""

    def __init__(self) -> None:
        self._root = page_folder()
        self._of: dict[int, deque[Path]] = {}

    @property
    def kept(self) -> set[Path]:
        """The folders that visitors hold."""
        return {path for folders in list(self._of.values()) for path in list(folders)}

    def folder(self, holder: Any = None) -> Path:
        """A new folder. One with a holder is deleted with it, or when the holder has three newer ones."""
        made = self._root / f"out-{secrets.token_urlsafe(24)}"  # who has the address may read it, and nobody guesses it
        made.mkdir(parents=True)
        if holder is not None:
            if id(holder) not in self._of:
                self._of[id(holder)] = deque()
                weakref.finalize(holder, self._drop, id(holder))
            held = self._of[id(holder)]
            held.append(made)
            while len(held) > LAST:
                rmtree(held.popleft(), ignore_errors=True)
        return made

    def _drop(self, holder: int) -> None:
        for path in self._of.pop(holder, ()):
            rmtree(path, ignore_errors=True)

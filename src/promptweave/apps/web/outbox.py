"""Files for download: a bounded number of them, in a folder that is deleted with the process."""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path
from shutil import rmtree


class Outbox:
    """Subfolders for downloads; beyond `most`, the oldest is deleted."""

    def __init__(self, most: int = 128) -> None:
        self._all = tempfile.TemporaryDirectory(prefix="promptweave-page-")
        self._folders: deque[Path] = deque()
        self.most = most

    def folder(self) -> Path:
        """A new folder."""
        made = Path(tempfile.mkdtemp(dir=self._all.name))
        self._folders.append(made)
        while len(self._folders) > self.most:
            rmtree(self._folders.popleft(), ignore_errors=True)
        return made

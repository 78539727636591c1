"""Locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def held(file: IO[bytes]) -> bool:
    """Lock an open file for this process, without waiting; False if another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def claimed(path: Path) -> Generator[bool]:
    """Claim what the file at `path` stands for during the block, unless another process has: then False is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        yield held(file)

"""The temporary folder of this process, in which all files of its pages lie; folders of killed ones are removed."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

PREFIX, LOCK = "promptweave-page-", ".lock"
OLD = 24 * 3600  # seconds after which a folder without a lock, such as one of an earlier version, is a left one
_locks: list[IO[bytes]] = []  # open for the life of the process


@cache
def page_folder() -> Path:
    """The folder, made at the first call and removed when the process ends; Gradio's files go there, too.

    It lies in the system's temporary folder, or in GRADIO_TEMP_DIR if that is set, and only its owner can read it.
    """
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()).resolve()
    parent.mkdir(parents=True, exist_ok=True)
    remove_left(parent)
    made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    _lock(made)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(made)
    return made


def remove_left(parent: Path) -> list[Path]:
    """Remove the folders of processes that were killed: their locks are free. Returns them."""
    gone: list[Path] = []
    for folder in sorted(parent.glob(f"{PREFIX}*")):
        if folder.is_dir() and not folder.is_symlink() and _left(folder):
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder)
    return gone


def _left(folder: Path) -> bool:
    try:
        about = folder.stat()
        if hasattr(os, "getuid") and about.st_uid != os.getuid():
            return False
        if sys.platform == "win32" or not (folder / LOCK).is_file():
            return time.time() - about.st_mtime > OLD
        with (folder / LOCK).open("rb") as lock:
            return _held(lock)
    except OSError:
        return False


def _lock(folder: Path) -> None:
    """Lock the folder. The file gets its name when it is locked, so that nobody finds it free in between."""
    if sys.platform == "win32":
        return
    fresh = folder / f"{LOCK}-new"
    lock = fresh.open("wb")
    _held(lock)
    fresh.rename(folder / LOCK)
    _locks.append(lock)


def _held(lock: IO[bytes]) -> bool:
    """Take a lock unless another process has it; on Windows there is none."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class _File:
    path: Path
    time: float
    size: int


def trim(folder: Path, most: int, age: int | float, kept: Collection[Path] = ()) -> set[str]:
    """Delete the files below `folder` that are older than `age` seconds, then the oldest beyond `most` bytes.

    Those in the folders `kept` stay; empty folders go. Returns the paths of the deleted files.
    """
    found: list[_File] = []
    for place, _, names in os.walk(folder, topdown=False):
        here = Path(place)
        for name in names:
            path = here / name
            try:
                about = path.lstat()
            except FileNotFoundError:
                continue
            if path != folder / LOCK:
                found.append(_File(path, max(about.st_mtime, about.st_ctime), about.st_size))
    free = [file for file in found if not any(place in file.path.parents for place in kept)]
    total, now, gone = sum(file.size for file in found), time.time(), set[str]()
    for file in sorted(free, key=lambda file: file.time):
        if now - file.time <= age and total <= most:
            break
        file.path.unlink(missing_ok=True)
        total -= file.size
        gone.add(str(file.path))
    for place in sorted({Path(path).parent for path in gone} - {folder, *kept}):
        while place != folder and place not in kept:
            try:
                place.rmdir()
            except OSError:  # it holds something else
                break
            place = place.parent
    return gone

"""Files are written whole or not at all: beside their place first, then moved there."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from errno import EISDIR
from pathlib import Path
from zlib import crc32

PREFIX = ".promptweave-"  # of what is being written; then come the machine, the process and a few letters
Write = Callable[[Path], object]


class CannotWrite(OSError):
    """Files that could not be written; whatever stood there before stands there still."""


def write_file(path: Path, write: Write) -> Path:
    """Let `write` write a file, which then takes its place at once. Folders are made. Raises CannotWrite."""
    write_files(path.parent, {path.name: write})
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 text file, whole or not at all. Raises CannotWrite."""
    return write_file(path, lambda fresh: fresh.write_text(text, "utf-8"))


def write_files(folder: Path, files: Mapping[str, Write], *, without: tuple[str, ...] = ()) -> list[Path]:
    """Write files of one folder together: until all are written, none takes its place. Returns their paths, sorted.

    `files`: name -> function that writes it to the path it gets. The last says that all are there: it is moved last
    and, if it is replaced, taken away first. `without`: patterns of older files that then go. Raises CannotWrite.
    """
    written = [folder / name for name in files]

    def ready() -> None:
        if len(written) > 1:
            written[-1].unlink(missing_ok=True)
        for path in {path for pattern in without for path in folder.glob(pattern)} - set(written):
            path.unlink(missing_ok=True)

    write_together({folder / name: write for name, write in files.items()}, ready)
    return sorted(written)


def write_together(files: Mapping[Path, Write], ready: Callable[[], None] | None = None) -> None:
    """Write files of any folders: all are written before the first takes its place. Raises CannotWrite.

    `ready` is called in between.
    """
    with ExitStack() as stack:
        moves: list[tuple[Path, Path]] = []
        fresh: dict[Path, Path] = {}
        for path, write in files.items():
            with _said(path):
                if path.parent not in fresh:
                    fresh[path.parent] = stack.enter_context(_beside(path.parent))
                if path.is_dir():
                    raise IsADirectoryError(EISDIR, "a folder of that name is there")
                write(fresh[path.parent] / path.name)
                moves.append((fresh[path.parent] / path.name, path))
        with _said(moves[0][1]):
            if ready:
                ready()
            for old, new in moves:
                os.replace(old, new)


@contextmanager
def replacing_folder(folder: Path) -> Generator[Path]:
    """A fresh folder to fill, which takes the place of `folder` at the end of the block. Raises CannotWrite."""
    with _said(folder), _beside(folder.parent) as fresh:
        made = fresh / folder.name
        made.mkdir()
        yield made
        before = folder.with_name(f".{folder.name}.before")  # never in `fresh`, which is removed after a crash
        shutil.rmtree(before, ignore_errors=True)
        if folder.exists():
            os.replace(folder, before)
        os.replace(made, folder)
        shutil.rmtree(before, ignore_errors=True)


def check_place(path: Path, cure: str = "Choose another with -o.") -> None:
    """Raise CannotWrite, before any work is done, if a file could not be written at `path`."""
    if path.is_dir():
        raise CannotWrite(f"{path} is a folder, and a file is to be written there. {cure}")
    check_folder(path.parent, cure)


def check_folder(folder: Path, cure: str = "Choose another with -o.") -> None:
    """Raise CannotWrite, before any work is done, if no files could be written to `folder`; it need not exist."""
    parent = folder
    if folder.exists() and not folder.is_dir():
        raise CannotWrite(f"{folder} is a file, and files are to be written to a folder of that name. {cure}")
    try:
        while not parent.exists() and parent != parent.parent:
            parent = parent.parent
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise CannotWrite(f"{folder} cannot be written to ({_reason(error)}). {cure}") from error


@contextmanager
def _said(place: Path) -> Generator[None]:
    """Errors of the system as one sentence."""
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(
            f"{place} cannot be written to ({_reason(error)}). Nothing was changed there. "
            "Make room or choose another place."
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


@contextmanager
def _beside(folder: Path) -> Generator[Path]:
    """A fresh folder inside `folder`, removed at the end; also removes those of processes that were killed."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{PREFIX}*"):
        if _abandoned(left.name):
            shutil.rmtree(left, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{_machine()}-{os.getpid()}-", dir=folder))
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _machine() -> str:
    return f"{crc32(platform.node().encode()):08x}"


def _abandoned(name: str) -> bool:
    """Whether what this process found was left behind by a process of this machine that no longer runs."""
    machine, _, rest = name.removeprefix(PREFIX).partition("-")
    number = rest.partition("-")[0]
    if os.name != "posix" or machine != _machine() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it runs, and is somebody else's
        return False
    return False

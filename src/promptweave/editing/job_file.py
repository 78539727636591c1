"""The lines of a file of jobs, read as a stream: the file is never in memory as a whole."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from promptweave.core.shown import shown
from promptweave.editing.json_text import UTF_16_OR_32, BadJson, read_json

LONGEST = 2**26  # bytes of a line; a mask of 1024 x 1024 in numbers has a fifth of it
PART = 2**20  # bytes that are read at once
LISTED = 20  # wrong lines that a message spells out
COMMENTS = (b"#", b"//")
MARK = b"\xef\xbb\xbf"  # of UTF-8 files that Windows wrote


class BadJobs(ValueError):
    """Invalid jobs; the message lists them."""


@dataclass(frozen=True)
class Wrong:
    """A line that is no job, and the rule that it breaks."""

    line: int
    message: str


@dataclass
class Found:
    """The wrong lines of a file: all are counted, the first are kept."""

    count: int = 0
    kept: list[Wrong] = field(default_factory=list[Wrong])

    def add(self, wrong: Wrong) -> None:
        self.count += 1
        if len(self.kept) < LISTED:
            self.kept.append(wrong)

    def listed(self) -> str:
        """One line of text for each that is kept, and how many there are besides."""
        lines = [f"line {wrong.line}: {wrong.message}" for wrong in self.kept]
        more = self.count - len(self.kept)
        return "\n".join([*lines, f"and {more} more lines. Correct these and check again."] if more else lines)


class JobFile:
    """The lines of a file that hold jobs: not those that are blank or comments, which begin with # or //.

    Pipes are copied to a temporary file first. Raises FileNotFoundError and BadJobs for what is no file of lines.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = _opened(self.path)
        weakref.finalize(self, self._file.close)
        self._state = self._now()
        self.places, self.numbers = array("q"), array("q")  # byte and number of each line
        self._find()
        if not self.places:
            raise BadJobs(f"{path} holds no jobs. Write one JSON object per line, with source and targets.")

    def __len__(self) -> int:
        return len(self.places)

    def values(self, index: int) -> Mapping[str, Any]:
        """The JSON object of the line in place `index`. Raises ValueError for a line that holds none."""
        if self._now() != self._state:
            raise BadJobs(f"{self.path} was changed while its jobs were run. Run it again: what is done is kept.")
        self._file.seek(self.places[index])
        line = self._file.readline(LONGEST + 1)
        if len(line) > LONGEST:
            raise BadJson(f"A line has at most {LONGEST >> 20} MiB. This one is longer. Give masks as files.")
        found = read_json(line.strip())
        if not isinstance(found, dict):
            raise BadJson(f'A job is a JSON object with a "source" and "targets". Received {shown(found)}.')
        return found

    def index(self, number: int) -> int | None:
        """The place of the line of this number; None if it holds no job."""
        place = bisect_left(self.numbers, number)
        return place if place < len(self.numbers) and self.numbers[place] == number else None

    def hint(self) -> str:
        """What kind of file this seems to be, if not one of JSON lines; else nothing."""
        self._file.seek(self.places[0])
        first = self._file.readline(200).removeprefix(MARK).strip()
        example = '{"source": "a cat", "targets": ["a dog"]}'
        if first[:1] == b"[" or first == b"{":
            return f"\nOne value over several lines is not read: write one object per line, such as {example}."
        if first[:1] != b"{" and (b"," in first or b"\t" in first):
            return f"\nThis looks like a table, which is not read: write one JSON object per line, such as {example}."
        return ""

    def _find(self) -> None:
        """Note the place and number of every line with a job."""
        self._file.seek(0)
        if self._file.read(4).startswith(UTF_16_OR_32):
            raise BadJobs(f"{self.path} is UTF-16 or UTF-32, and files of jobs are UTF-8. Save it as UTF-8.")
        self._file.seek(0)
        place = number = 0
        while part := self._file.readline(PART):
            number += 1
            start = part.removeprefix(MARK).lstrip() if number == 1 else part.lstrip()
            if start and not start.startswith(COMMENTS):
                self.places.append(place)
                self.numbers.append(number)
            while part and not part.endswith(b"\n"):  # the rest of a long line
                part = self._file.readline(PART)
            place = self._file.tell()

    def _now(self) -> tuple[int, int]:
        """Size and time of the open file, to notice changes."""
        state = os.fstat(self._file.fileno())
        return state.st_size, state.st_mtime_ns


def check_file(path: Path) -> None:
    """Raise FileNotFoundError or OSError for a file that cannot be read, before a model is loaded."""
    if not path.is_file():  # a pipe is read only once
        if path.is_dir() or not path.exists():
            _opened(path).close()
        return
    _opened(path).close()


def _opened(path: Path) -> IO[bytes]:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file of jobs. Give a file with one JSON object per line.")
    try:
        file = open(path, "rb")  # noqa: SIM115 - open as long as its jobs are used
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no file of jobs {path}. Check the path.") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    if file.seekable() and path.is_file():
        return file
    copied = tempfile.TemporaryFile()  # noqa: SIM115
    with file:
        shutil.copyfileobj(file, copied)
    copied.flush()
    return copied

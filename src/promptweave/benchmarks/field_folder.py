"""The folder of a benchmark: a file for each edit, locks, and what is gathered from them.

    run.json                          what all edits share; another run is refused
    sources/NAME.png                  the images as the model saw them
    edits/WAY/NAME.json and .png      one edit; the JSON file comes last and says that it is done
    locks/                            who works on what; a lock of a process that was killed is free again
    rows.parquet, summary.csv         gathered at the end

Every file takes its place whole, so a run that was killed at any moment goes on behind what is done. Several processes
and machines may work on one folder, if its file system has locks (local disks, NFS 4, Lustre ...).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from promptweave.core.files import check_folder, write_file, write_files, write_text
from promptweave.editing.json_text import read_json
from promptweave.editing.values import as_json
from promptweave.evaluate.edit_rows import EditRow, Means, figure_names, means, plain_row, row_of, write_edit_rows

FORMAT = 1
ROWS = "rows.parquet"


class RunFolder:
    """The files of one benchmark."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        check_folder(self.path)

    def open(self, header: Mapping[str, Any]) -> None:
        """Begin a run or go on with it. Raises FileExistsError for a folder that holds another run, or other files."""
        file, given = self.path / "run.json", json.loads(as_json({"format": FORMAT, **header}))
        if not file.exists():
            held = self.path.is_dir() and any(not each.name.startswith(".") for each in self.path.iterdir())
            if held and not file.exists():  # nobody else has begun the run in between
                raise FileExistsError(f"{self.path} holds other files. Choose another folder with -o.")
            write_text(file, as_json(given, indent=1))
            return
        there = read_json(file.read_bytes())
        for name, value in given.items():
            if not isinstance(there, dict) or there.get(name) != value:
                held = there.get(name) if isinstance(there, dict) else None
                raise FileExistsError(
                    f"{self.path} holds a run with {name} {held!r}, and this one has {value!r}. Choose another folder "
                    "with -o."
                )

    def row(self, way: str, name: str) -> EditRow | None:
        """The row of an edit that is done."""
        file = self.path / "edits" / way / f"{name}.json"
        return row_of(json.loads(file.read_text("utf-8"))) if file.is_file() else None

    def rows(self) -> list[EditRow]:
        """The rows of all edits that are done, ordered by way and pair."""
        return [row_of(json.loads(file.read_text("utf-8"))) for file in sorted(self.path.glob("edits/*/*.json"))]

    def write(self, way: str, row: EditRow, images: Mapping[str, np.ndarray], *, given: bool) -> EditRow:
        """Write the images of an edit, and then its row; returns it with the places of the images.

        `given`: the image "source" is one of the data set, and the same for all edits of it.
        """
        folder, places = f"edits/{way}", {name: f"edits/{way}/{row.pair}-{name}.png" for name in images}
        if given and "source" in images:
            places["source"] = f"sources/{row.pair}.png"
            if not (self.path / places["source"]).is_file():
                write_file(self.path / places["source"], Image.fromarray(images["source"]).save)
        made = replace(row, images={**row.images, **places})
        files: dict[str, Callable[[Path], object]] = {
            Path(places[name]).name: Image.fromarray(image).save
            for name, image in images.items()
            if places[name].startswith(folder)
        }
        files[f"{row.pair}.json"] = lambda fresh: fresh.write_text(
            json.dumps(plain_row(made), ensure_ascii=False), "utf-8"
        )
        write_files(self.path / folder, files)
        return made

    def image(self, row: EditRow, name: str) -> np.ndarray | None:
        """An image of an edit, uint8 [h, w, 3]."""
        place = row.images.get(name)
        return None if place is None else np.asarray(Image.open(self.path / place).convert("RGB"))

    @contextmanager
    def alone(self, group: str) -> Iterator[bool]:
        """Whether this process alone works on a group, as long as the block lasts. The system frees the locks of
        processes that end, however they end."""
        lock = FileLock(self.path / "locks" / f"{slug(group)}.lock")
        (self.path / "locks").mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def gather(self, rows: Sequence[EditRow]) -> list[Means]:
        """Write the rows and their means as tables; returns the means."""
        write_edit_rows(self.path / ROWS, rows)
        found = means(rows)
        write_text(self.path / "summary.csv", table_of(found, figure_names(rows)))
        return found


def slug(text: str) -> str:
    """A text as the name of a file, unique by eight letters of its hash.

    >>> slug("direct+replace cross 0.4")
    'direct+replace-cross-0.4-f631cab5'
    """
    mark = blake2b(text.encode(), digest_size=4).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9.+=]+', '-', text)[:80].strip('-')}-{mark}"


def table_of(found: Sequence[Means], figures: Sequence[str]) -> str:
    """The means as CSV: a line for each way, with the number of pairs behind each figure."""
    text = io.StringIO()
    fixed = ("inversion", "method", "settings", "strength", "pairs", "failures", "seconds")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*fixed, *(column for name in figures for column in (name, f"{name} pairs"))])
    for one in found:
        values = asdict(one)
        cells = [values[name] for name in fixed]
        for name in figures:
            cells += [one.figures.get(name, ""), one.counts.get(name, 0)]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()

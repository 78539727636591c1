"""Does the web page stay within its memory and files? Visitors work on it for minutes while both are measured."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from PIL import Image

from promptweave.benchmarks.page_visitor import Visitor
from promptweave.view.curves import curves

PAUSE = 2.0  # seconds between two measurements
FLAT = 0.03
FEW = 5  # files: less than a visitor's last pictures


class NotFlat(RuntimeError):
    """The page's memory or files grow with the time that it runs."""


@dataclass(frozen=True)
class Moment:
    """A measurement: seconds since the start, resident megabytes of the server, its temporary files, and visits."""

    seconds: float
    megabytes: float
    files: int
    visits: int


@dataclass(frozen=True)
class Growth:
    """What was measured, and its medians in the three thirds of the time; `share`: from the second to the last."""

    what: str
    thirds: tuple[float, float, float]

    @property
    def share(self) -> float:
        return self.thirds[2] / self.thirds[1] - 1 if self.thirds[1] else 0.0

    @property
    def flat(self) -> bool:
        """Within 3 %, or fewer files than a visitor's last pictures."""
        return self.share <= FLAT or (self.what == "files" and self.thirds[2] - self.thirds[1] <= FEW)


def soak(
    minutes: float,
    clients: int = 4,
    *,
    model: str = "toybox-fast",
    progress: Callable[[], None] = lambda: None,
    options: Sequence[str] = (),
) -> list[Moment]:
    """Measure a page of its own process while `clients` visitors come, work, and leave; `options`: of `page`.

    Linux only: memory is read from /proc. Raises RuntimeError if the page does not start or ends.
    """
    with tempfile.TemporaryDirectory(prefix="promptweave-soak-") as folder:
        command = [
            sys.executable,
            "-m",
            "promptweave",
            "app",
            "--no-browser",
            "--port",
            "0",
            "--model",
            model,
            *options,
        ]
        surroundings = {**os.environ, "TMPDIR": folder, "GRADIO_TEMP_DIR": "", "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings) as server:
            try:
                return _measured(server, Path(folder), minutes, clients, progress)
            finally:
                server.terminate()


def _measured(
    server: subprocess.Popen[str], folder: Path, minutes: float, clients: int, progress: Callable[[], None]
) -> list[Moment]:
    assert server.stdout is not None
    said = server.stdout.readline()
    if "http" not in said:
        raise RuntimeError(f"The page did not start. It said {said!r}. Start it alone: promptweave app --no-browser.")
    url = next(word for word in said.split() if word.startswith("http"))
    over, visits, failed = Event(), [0] * clients, list[Exception]()
    begun = time.monotonic()

    def come_and_go(number: int) -> None:
        luck = random.Random(number)
        try:
            while not over.is_set():
                visitor = Visitor(url, luck)
                try:
                    visitor.work(over)
                    visits[number] += 1
                finally:
                    visitor.close()
        except Exception as error:
            failed.append(error)

    threads = [Thread(target=come_and_go, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    found: list[Moment] = []
    while (passed := time.monotonic() - begun) < 60 * minutes:
        if server.poll() is not None:
            raise RuntimeError(f"The page ended with {server.returncode} after {passed:.0f} seconds.")
        if failed:
            raise RuntimeError(f"A visitor failed after {passed:.0f} seconds: {failed[0]}.") from failed[0]
        found.append(Moment(passed, resident(server.pid), files(folder), sum(visits)))
        progress()
        time.sleep(PAUSE)
    over.set()
    for thread in threads:
        thread.join(120)
    return found


def resident(process: int) -> float:
    """The resident memory of a process, in megabytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def files(folder: Path) -> int:
    """The number of files in a folder and below."""
    return sum(len(names) for _, _, names in os.walk(folder))


def growth(moments: Sequence[Moment]) -> list[Growth]:
    """The growth of memory, by its median and its peak, and of the number of files."""
    end = moments[-1].seconds or 1.0
    thirds = [[m for m in moments if part / 3 <= m.seconds / end <= (part + 1) / 3] for part in range(3)]

    def of(what: str, read: Callable[[Moment], float], middle: Callable[[list[float]], float]) -> Growth:
        first, second, last = (middle([read(m) for m in third]) for third in thirds)
        return Growth(what, (first, second, last))

    return [
        of("megabytes", lambda m: m.megabytes, statistics.median),
        of("megabytes, at most", lambda m: m.megabytes, max),
        of("files", lambda m: float(m.files), statistics.median),
    ]


def check(moments: Sequence[Moment]) -> None:
    """Raise NotFlat if memory or files grew by more than 3 % from the second to the last third."""
    grown = [f"{g.what}: from {g.thirds[1]:.0f} to {g.thirds[2]:.0f}" for g in growth(moments) if not g.flat]
    if grown:
        raise NotFlat(
            f"The page must be flat within {FLAT:.0%} over the last two thirds. It grew ({'; '.join(grown)}). "
            "Please report it."
        )


def plot(moments: Sequence[Moment], count: int = 120) -> Image.Image:
    """Memory and files over the time, one above the other."""
    step = max(1, len(moments) // count)
    shown = moments[::step]
    pause = shown[1].seconds - shown[0].seconds if len(shown) > 1 else 1.0
    parts = [
        curves({what: values}, title=title, across=f"time, in units of {pause:.0f} s", size=(760, 300))
        for what, title, values in (
            ("MB", "Resident memory of the page (MB)", [m.megabytes for m in shown]),
            ("files", "Temporary files of the page", [m.files for m in shown]),
        )
    ]
    page = Image.new("RGB", (760, 600))
    for number, part in enumerate(parts):
        page.paste(part, (0, 300 * number))
    return page

"""The picture of docs/evaluation.md: the page of a benchmark on a drawn miniature, as Chromium shows it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

import promptweave as pw
from promptweave.benchmarks.drawn_data import drawn_pie_bench

RUN = Path("out/docs-evaluation")  # a run that is there is not made again


def evaluation(run: Path = RUN) -> Image.Image | dict[str, Image.Image]:
    """The upper part of the page of a run on 21 pairs."""
    browser = shutil.which("chromium")
    if browser is None:
        print("evaluation.webp is a screenshot: install chromium to make it")
        return {}
    found = pw.benchmark(
        drawn_pie_bench(run.with_name(f"{run.name}-data-21"), 21), editors=("none", "p2p", "masactrl", "pnp"),
        inversions=("direct",), grid={"cross": [0, 0.4, 0.8]}, model="toybox-fast", output=run,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        page, shot = pw.write_run_report(found.folder, Path(folder) / "page.html"), Path(folder) / "page.png"
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1180,2060")
        command = [browser, *options, f"--user-data-dir={folder}/profile", f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        with Image.open(shot) as image:
            return image.convert("RGB")

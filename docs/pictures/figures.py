"""The figures that commands draw: what to run, and which of the files that it writes the documentation shows.

The benchmarks take minutes to hours, on a CPU or a GPU; where a figure of the documentation comes from a larger run,
its page says so, and the command here makes the same figure of a smaller one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent
PLACE = "FOLDER"  # in a command: the temporary folder that it writes to
CURVES = {"toybox": 20, "toybox-fast": 8, "toybox-dit": 14}  # steps
SIX = ("FlowEdit", "Consist", "UniEdit", "DirectEdit, blend", "KV-Edit, word", "KV-Edit, mask")


@dataclass(frozen=True)
class Figure:
    """A command, and which of its files become which of docs/pictures; without `files`, all under their names."""

    command: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict[str, str])

    def draw(self) -> list[Path]:
        """Run it, and write the pictures."""
        with tempfile.TemporaryDirectory() as folder:
            command = [folder if word == PLACE else word for word in self.command]
            subprocess.run(
                [sys.executable, "-m", *command], check=True, env={**os.environ, "PROMPTWEAVE_PICTURES": folder}
            )
            found = self.files or {path.name: path.name for path in Path(folder).iterdir() if path.is_file()}
            return [_kept(Path(folder) / name, FOLDER / kept) for name, kept in found.items()]


def _kept(made: Path, kept: Path) -> Path:
    """The picture at its place, as WebP if that is its ending."""
    if kept.suffix == ".webp" and made.suffix != ".webp":
        from PIL import Image

        with Image.open(made) as image:
            image.convert("RGB").save(kept, quality=88)
    else:
        shutil.copy(made, kept)
    return kept


def bench(*words: str) -> tuple[str, ...]:
    """A benchmark that writes to the temporary folder."""
    return ("promptweave", "bench", *words, PLACE)


def curves(model: str, steps: int) -> Figure:
    """Every method over its main strength, one pair of each kind of edit: all on one plot, each alone, and a table."""
    pictures = {
        f"curves-{model}-drawn{part}.{kind}": f"curves-{model}{part}.{kept}"
        for part in ("", "-each")
        for kind, kept in (("svg", "svg"), ("png", "webp"))
    }
    return Figure(
        bench("curves", "--model", model, "--steps", str(steps), "--count", "8", "-o"),
        {**pictures, f"curves-{model}-drawn.csv": f"curves-{model}.csv"},
    )


FIGURES = {
    "page": Figure(("pytest", "tests/apps/test_web_browser.py", "-q")),
    "bench-page": Figure(
        ("promptweave", "bench", "page", "--minutes", "15", "--clients", "4", "-o", str(FOLDER / "page-soak.webp"))
    ),
    "bench-edits": Figure(bench("edits", "--pairs", "12", "--steps", "20", "--pictures")),
    **{f"bench-curves-{model}": curves(model, steps) for model, steps in CURVES.items()},
    "bench-editors": Figure(
        bench("editors", *SIX, "--model", "toybox-dit", "--count", "3", "--steps", "10", "--pictures"),
        {"editors.webp": "editors.webp"},
    ),
    "bench-inversions": Figure(
        bench("inversions", "--first", "3", "--count", "1", "--steps", "20", "--pictures"),
        {"inversions-3.webp": "inversions.webp"},
    ),
    "bench-given": Figure(
        bench("inversions", "direct", "--editors", "all", "--count", "12", "--steps", "20", "--pictures"),
        {"editors-direct.webp": "given-editors.webp"},
    ),
    "bench-given-dit": Figure(
        bench("inversions", "direct", "--editors", "all", "--model", "toybox-dit", "--count", "10", "--pictures"),
        {"editors-direct.webp": "given-editors-dit.webp"},
    ),
    "bench-inpainting": Figure(
        bench("inpainting", "--count", "9", "--steps", "12", "--pictures"),
        {"inpainting-colour.webp": "inpainting-colour.webp"},
    ),
}

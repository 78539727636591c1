"""Compute the source once: three targets from one recording, then the edit over a grid of attention windows."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/record"), steps: int = 25) -> None:
    source = "a photo of a cat riding a bike on the grass"
    recording = pw.record(source, steps=steps)
    print(f"recorded {recording.bytes / 1e6:.1f} MB")
    for thing in ("car", "bus", "scooter"):
        result = pw.edit(recording, source.replace("bike", thing), blend=("bike", thing))
        result.save(folder / thing, force=True)
    grid = pw.sweep(source, source.replace("bike", "car"), rows=("self_attention", (0, 0.5, 1)),
                    columns=("cross", (0, 0.4, 0.8)), steps=steps)  # fmt: skip
    grid.save(folder / "grid", force=True)
    chained = pw.record(pw.edit(recording, source.replace("bike", "car")))
    pw.edit(chained, "a photo of a cat riding a car at night").save(folder / "chained", force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

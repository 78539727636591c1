"""Benchmark editors on a data set: here a miniature of PIE-Bench that the embedded world draws, offline."""

from pathlib import Path

import promptweave as pw
from promptweave.benchmarks.drawn_data import write_drawn_pie_bench


def main(output: Path = Path("out/benchmark"), steps: int = 8) -> None:
    data = write_drawn_pie_bench(output / "data", count=1)  # yours: the folder of PIE-Bench, or a CSV file
    found = pw.benchmark(
        data,
        editors=("none", "p2p"),
        inversions=("direct",),
        grid={"cross": [0.8]},
        model="toybox-fast",
        settings=pw.Settings(steps=steps),
        output=output / "run",  # a run that was stopped goes on when it is called again
    )
    for way in found.means:
        print(way.method, way.settings, f"PSNR outside the mask {way.figures['psnr_outside']:.1f} dB")
    print(*found.missing, sep="\n")  # judges whose weights are not on this machine
    print(pw.write_run_report(found.folder))


if __name__ == "__main__":
    main()

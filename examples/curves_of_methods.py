"""What a method keeps against what it changes, over its main strength: a curve instead of a row of a table."""

from pathlib import Path

from promptweave.benchmarks.bench_curves import bench_curves, write_curves
from promptweave.models.load import load


def main(output: Path = Path("out/curves"), steps: int = 8) -> None:
    found = bench_curves(
        load("toybox-fast"),
        output,
        ("no control", "InfEdit"),  # leave them out for every method that suits the model
        count=1,  # pairs of scenes, of all kinds of edit in turn
        split="tuning",  # report figures of the split "test"
        steps=steps,
    )  # a run that was ended goes on in the same folder
    for curve in found:
        for point in curve.points:
            said = f"success {point.figures['success']:.0%}, PSNR {point.figures['psnr_outside']:.1f} dB"
            print(curve.method, point.settings, said)
        print(f"area under the front of {curve.method}: {curve.areas['psnr_outside'].value:.1f} dB")
    for path in write_curves(found, output):  # plots as SVG, PDF and PNG, points as CSV
        print(path)


if __name__ == "__main__":
    main()

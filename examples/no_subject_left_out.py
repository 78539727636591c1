"""Both subjects of a prompt get a place in the picture (Attend-and-Excite), and how much each is looked at."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/attend"), steps: int = 50) -> None:
    subjects = ("cat", "car")
    excite = pw.AttendAndExcite(subjects, sharpness=20)
    result = pw.generate("a photo of a cat and a car", controls=[excite], seed=2, steps=steps, compare=True)
    for word, losses in result.report["controls"][0]["losses"]["0"].items():
        print(f"{word}: loss {losses[0]:.2f} at the first step, {losses[-1]:.2f} at the last that is moved")
    result.save(folder, force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

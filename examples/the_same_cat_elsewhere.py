"""The same cat in another pose: the source's looks, the target's layout (MasaCtrl)."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/masactrl"), steps: int = 50) -> None:
    prompts = "a photo of a cat on the grass", "a photo of a cat riding a bike on the grass"
    for name, control in (("mutual", pw.MasaCtrl()), ("union", pw.MasaCtrl(union=True))):
        result = pw.edit(*prompts, controls=[control], steps=steps, compare=True)
        print(f"{name}: {result.report['controls'][0]}")
        result.save(folder / name, force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

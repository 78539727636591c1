"""Better structure without another model: lead away from what the network says without its middle blocks."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/skip-layer"), steps: int = 28) -> None:
    prompt = "a photo of a red car next to a house on the beach"
    for name, layers in (("blocks-3-and-4", (3, 4)), ("block-2", (2,))):
        control = pw.SkipLayerGuidance(layers=layers, window=0.5)
        made = pw.generate(prompt, model="toybox-dit", controls=[control], steps=steps, compare=True)
        print(f"{name}: {made.report['controls'][0]}")
        made.save(folder / name, force=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

"""Lead an image away from one whose self-attention is broken, with and without classifier-free guidance."""

import sys
from pathlib import Path

import promptweave as pw
from promptweave.view.sheet import sheet


def main(folder: Path = Path("out/examples/perturbed"), steps: int = 25) -> None:
    prompt = "a photo of a lion wearing a hat next to a blue car on the beach"
    layers = ("mid", "down_self_1", "up_self_0", "up_self_1")  # of toybox; large models need "mid" alone
    controls = {
        "plain": [],
        "perturbed attention": [pw.PerturbedAttentionGuidance(3.0, layers)],
        "smoothed energy": [pw.SmoothedEnergyGuidance(3.0, layers=layers)],
    }
    rows = [
        [pw.generate(prompt, controls=c, guidance=guidance, seed=1, steps=steps).source for c in controls.values()]
        for guidance in (1.0, 2.0)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    sheet(rows, [[f"{name}, guidance {g}" for name in controls] for g in (1, 2)]).save(folder / "sheet.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

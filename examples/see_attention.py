"""See what words look at: by step and layer, in self-attention, and before and after an edit."""

import sys
from pathlib import Path

import promptweave as pw


def main(folder: Path = Path("out/examples/attention"), steps: int = 50) -> None:
    seen = pw.look(
        "a photo of a dog next to a house in the snow",
        steps=steps,
        steps_shown=(0, 5, 25),
        layers=("down", "up"),
        self_attention=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    seen.by_step.sheet().save(folder / "steps.png")
    seen.gallery.sheet("dog", on_picture=True).save(folder / "dog.png")
    seen.self_attention.component_sheet().save(folder / "components.png")
    print(*seen.gallery.notes, sep="\n")
    for row in pw.statistics(seen.by_step):
        if row.step == 25 and row.word in ("dog", "house", "<start>"):
            print(f"{row.word} gets {row.share:.1%} of the attention, evenness {row.evenness:.2f}")

    result = pw.edit("a cat wearing a hat", "a lion wearing a red hat", blend="lion", steps=max(steps, 5), maps=True)
    views = pw.edit_maps(result)
    views.sheet().save(folder / "cat-and-lion.png")
    for pair in views.pairs():
        print(f"{pair.kind}: {pair.source} -> {pair.target}, {float(views.difference(pair).abs().mean()):.4f}")
    pw.write_report(result, folder / "report.html")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

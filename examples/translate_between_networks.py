"""Net2Net: images for a sentence, and the same residual under another sentence."""

from pathlib import Path

import promptweave as pw

BLUE, YELLOW = "a photo of a blue bird in a field", "a photo of a yellow bird in a forest"


def main(out: Path, steps: int = 1) -> None:
    text = pw.net2net("text")  # a flow takes one pass: steps are not its own
    made = text.sample(BLUE, YELLOW, count=max(2, steps), seed=0)  # a column shares its residual
    made.save(out / "sample", force=True)
    exchanged = text.exchange(made.pictures[0, 0], BLUE, YELLOW, "a sketch of a blue bird in the snow")
    exchanged.save(out / "exchange", force=True)
    labels = pw.net2net("domains").exchange(made.pictures[0, 0], "photo, day", "sketch, day", "photo, night")
    labels.save(out / "domains", force=True)


if __name__ == "__main__":
    main(Path("out/net2net"))

"""A miniature of PIE-Bench, drawn by the embedded world: to see a whole benchmark at work where nothing can be loaded.

The layout is PIE-Bench's; the images have 128 pixels a side, and each comes with the image that the edit should make.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
from PIL import Image

from promptweave.core.files import replacing_folder
from promptweave.editing.values import as_json
from promptweave.evaluate.pie_bench import IMAGES, KINDS, MAPPINGS, SIDE, encoded
from promptweave.world.counterfactuals import PROMPTED, Counterfactual, counterfactuals

OF_WORLD = {  # kinds of the world -> those of PIE-Bench
    "object swap": "1", "thing added": "2", "worn thing added": "2", "thing removed": "3", "colour change": "6",
    "background change": "8", "style change": "9",
}  # fmt: skip


def write_drawn_pie_bench(folder: Path | str, count: int = 48, split: str = "tuning") -> Path:
    """Write `count` pairs in PIE-Bench's layout into a fresh folder, and return it. Raises FileExistsError for one that
    is there, ValueError for more pairs than the world's fixed set has."""
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists. Choose another folder, or read the data in it.")
    pairs = counterfactuals(split, kinds=PROMPTED, count=count)
    with replacing_folder(folder) as fresh:
        entries = {f"{pair.number:012d}": _entry(fresh / IMAGES, pair) for pair in pairs}
        (fresh / MAPPINGS[0]).write_text(as_json(entries, indent=1), "utf-8")
    return folder


def drawn_pie_bench(folder: Path, count: int) -> Path:
    """The miniature in `folder`, which is drawn if it is not there."""
    return folder if (folder / MAPPINGS[0]).is_file() else write_drawn_pie_bench(folder, count)


def marked(source: str, target: str) -> tuple[str, str]:
    """Both prompts with brackets around what differs.

    >>> marked("a photo of a cat", "a photo of a red dog")
    ('a photo of a [cat]', 'a photo of a [red dog]')
    """
    sides = source.split(), target.split()
    made: tuple[list[str], list[str]] = ([], [])
    for tag, a, b, c, d in SequenceMatcher(None, *sides, autojunk=False).get_opcodes():
        for words, out, (start, end) in zip(sides, made, ((a, b), (c, d)), strict=True):
            said = " ".join(words[start:end])
            out += [said if tag == "equal" else f"[{said}]"] if said else []
    return " ".join(made[0]), " ".join(made[1])


def _entry(images: Path, pair: Counterfactual) -> dict[str, object]:
    """Write the images of a pair, and give its entry of the mapping file."""
    kind = OF_WORLD[pair.kind]
    folder = f"{kind}_{KINDS[kind].replace(' ', '_')}"
    paths = [f"{folder}/{pair.number:012d}{end}.png" for end in ("", "_target")]
    for path, pixels in zip(paths, (pair.drawn, pair.wanted), strict=True):
        (images / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(images / path)
    scale = SIDE // pair.region.shape[0]
    source, target = marked(pair.source, pair.target)
    return {
        "image_path": paths[0], "target_path": paths[1], "original_prompt": source, "editing_prompt": target,
        "editing_instruction": f"{pair.kind}: {pair.target}", "editing_type_id": kind,
        "blended_word": " ".join(_words(pair)), "mask": encoded(np.kron(pair.region, np.ones((scale, scale), bool))),
    }  # fmt: skip


def _words(pair: Counterfactual) -> Sequence[str]:
    """The words of a swap, or nothing where one side has none."""
    old, new = ([thing.noun for thing in things] for things in (pair.old, pair.new))
    return (old[0], new[0]) if old and new else ()

"""Counterfactuals: two scenes that differ in one respect, the prompts of both, and where the two images differ.

They are the examples of `promptweave bench world`: what an edit should make of the first image is the second, to the
pixel. `counterfactuals.json` holds a fixed set of them in two splits: "tuning", on which settings may be chosen, and
"test", on which nothing may be. In some the prompts leave the background, or the old colour, unsaid.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from promptweave.world.caption import caption
from promptweave.world.oracle import Sight
from promptweave.world.render import render
from promptweave.world.scene import Scene, Thing, has_held_out_pair
from promptweave.world.scene_changes import KINDS

SPLITS = ("tuning", "test")
FILE = "counterfactuals.json"
MARGIN = 4  # pixels around an outline: the resolution of the autoencoder's latents and of the oracle's regions
UNSAID = 3  # of so many pairs of a kind, one names no background
WEIGHT = -2.0


@dataclass(frozen=True)
class Counterfactual:
    """A scene, its counterfactual `other`, and the prompts of both. `number` is unique in the split.

    `weights`: factors on words that make the edit, if the prompts are the same.
    """

    number: int
    split: str
    kind: str
    source: str
    target: str
    scene: Scene
    other: Scene
    weights: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """E.g. "test 17"."""
        return f"{self.split} {self.number}"

    @cached_property
    def drawn(self) -> np.ndarray:
        """The image of the scene, uint8 [128, 128, 3]."""
        return render(self.scene)[0]

    @cached_property
    def wanted(self) -> np.ndarray:
        """The image of the counterfactual, uint8 [128, 128, 3]: what an edit should make."""
        return render(self.other)[0]

    @property
    def old(self) -> tuple[Thing, ...]:
        """The things that change or go."""
        return tuple(thing for thing in self.scene.things if thing not in self.other.things)

    @property
    def new(self) -> tuple[Thing, ...]:
        """What they become, or what comes."""
        return tuple(thing for thing in self.other.things if thing not in self.scene.things)

    @property
    def nouns(self) -> tuple[str, ...]:
        """The nouns of the things that change, old and new; none for a background or a style."""
        return tuple(dict.fromkeys(thing.noun for thing in (*self.old, *self.new)))

    @property
    def unsaid(self) -> bool:
        """Whether the source's prompt names no background."""
        return self.source == caption(self.scene, place=False)

    @cached_property
    def region(self) -> np.ndarray:
        """Where the image may change, bool [128, 128]: the outlines of the changed things before and after, with a
        margin; for a background all but the things; for a style everything."""
        if self.scene.style != self.other.style:
            return np.ones(self.drawn.shape[:2], bool)
        if self.scene.background != self.other.background:
            return grown(~np.asarray(render(self.scene)[1].any(0)), MARGIN)
        outlines = [
            mask
            for scene, things in ((self.scene, self.old), (self.other, self.new))
            for thing, mask in zip(scene.things, render(scene)[1], strict=True)
            if thing in things
        ]
        return grown(np.any(outlines, 0), MARGIN)

    def success(self, sight: Sight) -> bool:
        """Whether the edit was made, as the oracle sees an image: all things of the counterfactual are there, the new
        ones in their colours, those that should go are gone, and a new background or style is the image's."""
        gone = {thing.noun for thing in self.old} - {thing.noun for thing in self.other.things}
        return (
            all(sight.has(thing.noun) for thing in self.other.things)
            and all(sight.has(thing.noun, thing.colour) for thing in self.new)
            and not any(sight.has(noun) for noun in gone)
            and (self.scene.background == self.other.background or sight.background == self.other.background)
            and (self.scene.style == self.other.style or sight.style == self.other.style)
        )


def grown(mask: np.ndarray, margin: int) -> np.ndarray:
    """A mask with so many pixels more on all sides."""
    wide = np.pad(mask, margin)
    height, width = mask.shape
    moves = range(2 * margin + 1)
    return np.any([wide[y : y + height, x : x + width] for y in moves for x in moves], 0)


WEIGHTED = "re-weighting to -2"  # the kind whose prompts are the same
PROMPTED = tuple(kind for kind in KINDS if kind != WEIGHTED)


def drawn(kind: str, rng: random.Random, number: int, split: str, *, unsaid: bool = False) -> Counterfactual:
    """A pair of this kind; `unsaid`: a background that stays is not named, and of one that changes the old is not."""
    while True:
        scene, other = (_rounded(each) for each in KINDS[kind](rng))
        if scene != other and not has_held_out_pair(scene) and not has_held_out_pair(other):
            break
    source, target = caption(scene, place=not unsaid), caption(other, place=not unsaid or kind == "background change")
    if kind != WEIGHTED:
        return Counterfactual(number, split, kind, source, target, scene, other)
    gone = next(thing.noun for thing in scene.things if thing not in other.things)
    return Counterfactual(number, split, kind, source, source, scene, other, ((gone, WEIGHT),))


def _rounded(scene: Scene) -> Scene:
    """Places in thousandths, as the file has them."""
    return replace(
        scene,
        things=tuple(
            replace(t, x=round(t.x, 3), bottom=round(t.bottom, 3), size=round(t.size, 3)) for t in scene.things
        ),
    )


def made(split: str, count: int, look: Callable[[np.ndarray], Sequence[Sight]]) -> Iterator[Counterfactual]:
    """`count` pairs of each kind, in turn, that the oracle judges right: it sees the edit in the counterfactual's image
    and not in the scene's. `look` is `Oracle.look`."""
    rngs = {kind: random.Random(f"counterfactuals {split} {kind}") for kind in KINDS}
    number = 0
    for index in range(count):
        for kind, rng in rngs.items():
            while True:
                pair = drawn(kind, rng, number, split, unsaid=index % UNSAID == UNSAID - 1)
                before, after = look(np.stack([pair.drawn, pair.wanted]))
                if pair.success(after) and not pair.success(before):
                    break
            yield pair
            number += 1


def as_line(pair: Counterfactual) -> dict[str, Any]:
    """A pair as JSON data: the scene whole, of the other only what differs."""
    one, two = (_fields(scene) for scene in (pair.scene, pair.other))
    line: dict[str, Any] = {name: getattr(pair, name) for name in ("number", "kind", "source", "target")}
    line |= {"scene": one, "other": {name: value for name, value in two.items() if value != one[name]}}
    return line | ({"weights": dict(pair.weights)} if pair.weights else {})


def _fields(scene: Scene) -> dict[str, Any]:
    """A scene's fields; of its things only what is not the default."""
    things = [{name: value for name, value in asdict(thing).items() if value} for thing in scene.things]
    return {**asdict(scene), "things": things}


def read_line(line: dict[str, Any], split: str) -> Counterfactual:
    """A pair from what `as_line` made."""

    def scene(fields: dict[str, Any]) -> Scene:
        return Scene(**{**fields, "things": tuple(Thing(**thing) for thing in fields["things"])})

    return Counterfactual(
        line["number"], split, line["kind"], line["source"], line["target"],
        scene(line["scene"]), scene({**line["scene"], **line["other"]}), tuple(line.get("weights", {}).items()),
    )  # fmt: skip


def file_path() -> Path:
    """Path of the fixed set in the installed package."""
    return Path(str(resources.files("promptweave.world").joinpath(FILE)))


def file_text(splits: dict[str, Sequence[Counterfactual]]) -> str:
    """The text of the file, one pair a line."""
    parts = [
        f'"{split}": [\n' + ",\n".join(json.dumps(as_line(p), separators=(",", ":")) for p in pairs) + "\n]"
        for split, pairs in splits.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


@lru_cache(maxsize=2)
def _all(split: str) -> tuple[Counterfactual, ...]:
    return tuple(read_line(line, split) for line in json.loads(file_path().read_text("utf-8"))[split])


def counterfactuals(
    split: str = "tuning", *, kinds: Sequence[str] = PROMPTED, first: int = 0, count: int | None = None
) -> tuple[Counterfactual, ...]:
    """`count` pairs (None: all that follow) of these kinds from the fixed set, from the `first`, counted from 0; kinds
    come in turn, so that a part of the set is balanced. Raises ValueError for what the set does not have.

    The split "test" is for figures that are reported, never for choosing a setting.
    """
    if split not in SPLITS:
        raise ValueError(f"Splits are {' and '.join(map(repr, SPLITS))}. Received {split!r}.")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(
            f"Kinds of edits are {', '.join(map(repr, KINDS))}. Received {', '.join(map(repr, unknown)) or 'none'}. "
            "Name one of these."
        )
    found = tuple(pair for pair in _all(split) if pair.kind in kinds)
    left = len(found) - first
    if not 0 <= first < len(found) or (count is not None and not 1 <= count <= left):
        asked = f"a count of {count}" if count is not None else "no count"
        raise ValueError(
            f"The split {split} has {len(found)} pairs of these kinds. Received {asked} from pair {first}, counted "
            f"from 0. {f'Take 1 to {left} of them' if 0 <= first < len(found) else 'Begin earlier'}."
        )
    return found[first:][:count]

"""What kind of change leads from one prompt to another: a thing, a colour, a background, a style ...

Found by the alignment of the words and three short lists; words that no list has name things. The kinds matter because
they want different strengths of control (`editing.usual_strengths`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from promptweave.words.align import alignment
from promptweave.words.tokens import Word, Words
from promptweave.words.units import key

EditKind = Literal["swap", "colour", "background", "style", "addition", "removal", "weight"]

COLOURS = frozenset(
    "red orange yellow green blue purple violet pink brown black white grey gray golden silver beige turquoise teal "
    "crimson scarlet maroon olive navy cyan magenta lime".split()
)
PLACES = frozenset(
    "beach grass snow desert night forest field meadow park garden jungle mountain mountains hill hills valley canyon "
    "sea ocean lake river shore coast island water sky clouds space moon city town village street road highway square "
    "market station harbour harbor room kitchen bedroom bathroom office studio library museum church stadium stage "
    "background rain fog storm sunset sunrise dawn dusk day morning evening winter summer spring autumn".split()
)
STYLES = frozenset(
    "photo photograph picture image painting watercolor watercolour sketch drawing render rendering illustration "
    "cartoon sculpture poster style anime comic mosaic engraving impressionist".split()
)
SMALL = frozenset("a an the of in on at to and with by near under over from into beside next is are its".split())


@dataclass(frozen=True)
class Change:
    """How a target differs from its source. `old`, `new` and `kept`: the telling words that go, come and stay, as
    selectors of the source, of the target and of the target (`words.Words.find`)."""

    kind: EditKind
    old: tuple[str, ...]
    new: tuple[str, ...]
    kept: tuple[str, ...]


def change(source: Words, target: Words, weighted: Collection[str] = ()) -> Change:
    """The kind of edit that two prompts ask for; `weighted`: words with another weight, if the prompts are the same.

    Style: all that changes stands before the first "of", or names a style. Colour and background: all that changes
    names colours, or places and times. Addition and removal: words only come, or only go. Otherwise a swap.
    """
    pairs = alignment(source, target)
    moved = {"source": _tokens(pairs, "source_tokens"), "target": _tokens(pairs, "target_tokens")}
    old = [word for word in _telling(source) if set(word.tokens) & moved["source"]]
    new = [word for word in _telling(target) if set(word.tokens) & moved["target"]]
    stays = [word for word in _telling(target) if not set(word.tokens) & moved["target"]]
    kept = tuple(selector(target, word) for word in stays if not _of_style(target, word))
    if not old and not new and weighted:
        return Change("weight", tuple(weighted), (), tuple(name for name in kept if name not in weighted))
    gone, come = (tuple(selector(w, word) for word in found) for w, found in ((source, old), (target, new)))
    return Change(_kind(source, old, target, new), gone, come, kept)


def _kind(source: Words, old: list[Word], target: Words, new: list[Word]) -> EditKind:
    changed = [(source, word) for word in old] + [(target, word) for word in new]
    if not changed:
        return "swap"
    if all(_of_style(words, word) for words, word in changed) or any(key(w.text) == "style" for w in new):
        return "style"  # "a sketch of ..." for "a photo of ...", or "... in the style of ..."
    lists: dict[EditKind, frozenset[str]] = {"colour": COLOURS, "background": PLACES}
    for kind, names in lists.items():
        if all(key(word.text) in names for _, word in changed):
            return kind
    return "addition" if not old else "removal" if not new else "swap"


def _of_style(words: Words, word: Word) -> bool:
    """Whether a word names the kind of image: it stands before the first "of" of a prompt that begins with one."""
    first = next((other for other in words.words if key(other.text) == "of"), None)
    head = [other for other in words.words if first is not None and other.end <= first.start]
    said = any(key(other.text) in STYLES for other in head)
    return key(word.text) in STYLES or (said and word in head)


def _tokens(pairs: Any, side: str) -> set[int]:
    return {token for pair in pairs if pair.kind != "kept" for token in getattr(pair, side)}


def _telling(words: Words) -> list[Word]:
    """The words that name something: no articles and the like, and no verbs in "-ing"."""
    found = [word for word in words.words if key(word.text) not in SMALL and word.tokens]
    return [word for word in found if not key(word.text).endswith("ing") or key(word.text) in PLACES | STYLES]


def selector(words: Words, word: Word) -> str:
    """What `Words.find` finds just this word by: its text, with "#2" for the second of several."""
    same = [other for other in words.words if key(other.text) == key(word.text)]
    return word.text if len(same) == 1 else f"{word.text}#{same.index(word) + 1}"


def region_words(found: Change, target: Words) -> tuple[str, ...]:
    """The words of the prompts whose regions an edit changes: for a colour that of the thing that has it; none for a
    style, and for a background that of the new place."""
    if found.kind == "style":
        return ()
    if found.kind != "colour":
        return found.new or found.old
    telling = _telling(target)
    nouns: list[str] = []
    for place, word in enumerate(telling):
        if selector(target, word) in found.new:
            nouns += [selector(target, after) for after in telling[place + 1 : place + 2]]
    return tuple(dict.fromkeys(nouns))


def weighted_words(weights: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The words whose weights are not 1."""
    return tuple(word for word, factor in (weights or {}).items() if factor != 1)

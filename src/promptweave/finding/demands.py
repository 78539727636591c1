"""What a pair of prompts of the synthetic world asks of an edited image, read from their words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptweave.words.units import key, split
from promptweave.world.caption import JOINS, MEDIA, PLACES, SYNONYMS
from promptweave.world.oracle import Sight
from promptweave.world.scene import COLOURS, NOUNS

NAMES = {other: noun for noun, others in SYNONYMS.items() for other in others} | {noun: noun for noun in NOUNS}
GROUNDS = {
    word: place for place, texts in PLACES.items() for text in texts for word in text.split()[-1:]
}  # "on the grass" -> grass, "in a field" -> grass
JOINING = {word for texts in JOINS.values() for text in texts for word in text.split()}
WORDS = JOINING | {word for texts in (*MEDIA.values(), *PLACES.values()) for text in texts for word in text.split()}


@dataclass(frozen=True)
class Said:
    """What a prompt says: things with their colours, None where it names none, background and style."""

    things: tuple[tuple[str, str | None], ...]
    background: str | None
    style: str | None

    @property
    def nouns(self) -> frozenset[str]:
        """The things."""
        return frozenset(noun for noun, _ in self.things)


def said(prompt: str) -> Said | None:
    """What a prompt of the synthetic world says; None if it has a word that the world lacks, or no thing."""
    words = [key(prompt[a:b]) for a, b in split(prompt)]
    things, colour, background = list[tuple[str, str | None]](), None, None
    for word in words:
        if word in NAMES:
            things.append((NAMES[word], colour))
            colour = None
        elif word in COLOURS:
            colour = word
        elif word in GROUNDS:
            background = GROUNDS[word]
        elif word not in WORDS and word not in ("a", "an", "the"):
            return None
    style = "watercolor" if "watercolor" in words else next((name for name in MEDIA if name in words), None)
    return Said(tuple(things), background, style) if things else None


@dataclass(frozen=True)
class Demands:
    """What an edit should do: things (with colours) that must be there, things that must be gone, a new background or
    style. `changed`: the nouns whose regions may change."""

    present: tuple[tuple[str, str | None], ...]
    gone: tuple[str, ...]
    background: str | None
    style: str | None
    changed: tuple[str, ...]

    @classmethod
    def of(cls, source: str, target: str, weights: Mapping[str, Any] | None = None) -> Demands | None:
        """The demands of an edit; None if a prompt is not of the world, or nothing that it could see is asked for."""
        old, new = said(source), said(target)
        if old is None or new is None:
            return None
        off = _weighted(weights or {}, new.nouns, lambda factor: factor <= 0)
        gone = tuple(sorted((old.nouns - new.nouns) | off))
        fresh = tuple(thing for thing in new.things if thing not in old.things)
        up = _weighted(weights or {}, new.nouns, lambda factor: factor > 1)
        present = tuple((noun, c if (noun, c) in fresh else None) for noun, c in new.things if noun not in off)
        changed = tuple(dict.fromkeys([*gone, *(noun for noun, _ in fresh), *sorted(up)]))
        background = new.background if new.background != old.background else None
        style = new.style if new.style != old.style else None
        return cls(present, gone, background, style, changed) if changed or background or style else None

    def score(self, sight: Sight) -> float:
        """How far an image meets all demands: the probability of the one that it meets least, above 0.5 if it meets all
        of them."""
        found = [sight.things[noun] for noun, _ in self.present] + [1 - sight.things[noun] for noun in self.gone]
        found += [0.75 if sight.has(noun, colour) else 0.25 for noun, colour in self.present if colour]
        found += [_lead(sight.backgrounds, self.background)] if self.background else []
        found += [_lead(sight.styles, self.style)] if self.style else []
        return min(found)

    def stays(self, *sights: Sight) -> np.ndarray:
        """Where an edit should change nothing, bool [height, width]: for a background or a style the things, else what
        is outside the regions of the changed things in all of the images."""
        regions = [sight.regions[noun] for sight in sights for noun in self.changed]
        if regions:
            return ~np.any(regions, 0)
        shape = next(iter(sights[0].regions.values())).shape
        things = [region for noun, region in sights[0].regions.items() if sights[0].has(noun)]
        return np.any(things or [np.zeros(shape, bool)], 0)


def _lead(chances: Mapping[str, Any], wanted: str) -> float:
    """The probability of a name against the best of the others, above 0.5 if it is the most probable."""
    others = max((chance for name, chance in chances.items() if name != wanted), default=0.0)
    return chances[wanted] / max(chances[wanted] + others, 1e-12)


def _weighted(weights: Mapping[str, Any], nouns: Collection[str], wanted: Callable[[Any], bool]) -> frozenset[str]:
    named = {NAMES.get(key(word.partition("#")[0]), ""): factor for word, factor in weights.items()}
    return frozenset(noun for noun, factor in named.items() if noun in nouns and wanted(factor))

"""Words that the embedded models have not learned, found while they are typed, and those to offer instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from promptweave.models.base import Model
from promptweave.models.embedded import NAMES
from promptweave.words import Words, alignment
from promptweave.words import edit_kinds as kinds
from promptweave.words.units import key
from promptweave.world import caption, scene

COUNT = 6  # words that are offered
ARTICLES = frozenset("a an the of in on at to and with next riding eating wearing".split())
STYLES = tuple(caption.MEDIA)
GROUPS = (scene.ANIMALS, scene.RIDES, scene.FOODS, scene.THINGS, scene.WEARS, scene.COLOURS, scene.BACKGROUNDS, STYLES)
KNOWN = frozenset(
    word
    for text in (
        *(text for texts in (*caption.SYNONYMS.values(), *caption.PLACES.values(), *caption.MEDIA.values(),
                             *caption.JOINS.values()) for text in texts),
        *scene.NOUNS, *scene.COLOURS, *scene.BACKGROUNDS,
    )
    for word in text.split()
) | ARTICLES  # fmt: skip


@dataclass(frozen=True)
class Unknown:
    """A word that the model has not learned, in the edited prompt or the source's, and known ones of its kind."""

    word: str
    known: tuple[str, ...]
    target: bool = True


def unknown_words(model: Model, source: Words, target: Words) -> list[Unknown]:
    """The words of two prompts that no caption of the embedded models' world has; none for other models."""
    if model.name not in NAMES:
        return []
    partners = {
        part: key((pair.source or "").split()[-1])
        for pair in alignment(source, target)
        if pair.kind == "swapped" and (pair.source or "").split()
        for part in (pair.target or "").split()
    }
    found: dict[str, Unknown] = {}
    for words, edited in ((target, True), (source, False)):
        for word in words.words:
            name = key(word.text)
            if name.isalpha() and name not in KNOWN and name not in found:
                partner = partners.get(word.text, "") if edited else ""
                found[name] = Unknown(word.text, offered(name, partner), edited)
    return list(found.values())


def offered(word: str, partner: str = "") -> tuple[str, ...]:
    """Known words to take instead: those spelled nearly so, then those of its kind, or of that of the word which it
    replaces (`partner`)."""
    group: Sequence[str] = next((group for group in GROUPS if partner in group), ())
    for some, names in ((scene.COLOURS, kinds.COLOURS), (scene.BACKGROUNDS, kinds.PLACES), (STYLES, kinds.STYLES)):
        group = some if word in names else group
    near = get_close_matches(word, sorted(KNOWN - ARTICLES), 2, 0.75)
    others = [other for other in (group or scene.ANIMALS + scene.RIDES) if other != partner]
    return tuple(dict.fromkeys([*near, *others]))[:COUNT]

"""A word in both prompts of an edit: where it stands, and what it was swapped with."""

from __future__ import annotations

from promptweave.words.align import alignment
from promptweave.words.tokens import AmbiguousWord, Words


def counterparts(word: str, source: Words, target: Words) -> dict[str, tuple[int, ...]]:
    """Tokens of a word in the prompts that hold it, and of what it was swapped with in the other."""
    found: dict[str, tuple[int, ...]] = {}
    for side, words in (("source", source), ("target", target)):
        try:
            found[side] = words.find(word)
        except AmbiguousWord:
            raise
        except ValueError:
            continue
    if len(found) == 1:
        (side, tokens), other = next(iter(found.items())), ""
        for row in alignment(source, target):
            here, there = (
                (row.source_tokens, row.target_tokens) if side == "source" else (row.target_tokens, row.source_tokens)
            )
            if row.kind == "swapped" and set(here) & set(tokens):
                other = "target" if side == "source" else "source"
                found[other] = (*found.get(other, ()), *there)
    return found

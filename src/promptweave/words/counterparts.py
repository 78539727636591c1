"""A word in both prompts of an edit: its tokens, and those of the word it was swapped with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from promptweave.core.control import Run
from promptweave.core.targets import SOURCE
from promptweave.words.align import alignment
from promptweave.words.tokens import WordNotFound, Words

Sides = dict[Literal["source", "target"], tuple[int, ...]]


def marked(words: Sequence[str], run: Run, rows: tuple[int, ...], *, shared: bool = False) -> dict[int, Sides]:
    """For each target, the tokens of the words and of their counterparts, in the source and in the target.

    A source word counts for the targets that keep or swap it. `shared`: it counts for all, as in the authors' code.
    Raises WordNotFound if a word is in no prompt.
    """
    marks: dict[int, Sides] = {row: {"source": (), "target": ()} for row in rows}
    for word in words:
        found = {row: counterparts(word, run.words[SOURCE], run.words[row]) for row in rows}
        if not any(found.values()):
            run.words[rows[0]].find(word)  # raises WordNotFound, which lists the words
        for row, sides in found.items():
            for side, tokens in sides.items():
                marks[row][side] += tokens
    if shared:
        everything = tuple(token for sides in marks.values() for token in sides["source"])
        for sides in marks.values():
            sides["source"] = everything
    return marks


def none_of(words: Sequence[str] | str, run: Run, row: int) -> str:
    """The part of an error message that says that a target has none of the words, and what to do."""
    names = ", ".join(map(repr, (words,) if isinstance(words, str) else words))
    others = tuple(number for number in range(1, len(run.prompts)) if number != row)
    return (
        f'"{run.prompts[row]}" neither has nor changes any of the words received, {names}. Name one of its words, '
        f"or leave this target out: targets={others}."
    )


def counterparts(word: str, source: Words, target: Words) -> Sides:
    """Tokens of a word in the prompts that contain it; in the other one, those of the word it was swapped with."""
    found: Sides = {}
    with suppress(WordNotFound):
        found["source"] = source.find(word)
    with suppress(WordNotFound):
        found["target"] = target.find(word)
    if len(found) == 1:
        side, tokens = next(iter(found.items()))
        other = "target" if side == "source" else "source"
        met: list[tuple[str, tuple[int, ...]]] = []
        for row in alignment(source, target):
            here, there = (
                (row.source_tokens, row.target_tokens) if side == "source" else (row.target_tokens, row.source_tokens)
            )
            if set(here) & set(tokens):
                met.append((row.kind, there))
        if any(kind == "swapped" for kind, _ in met):  # what a phrase keeps belongs to its counterpart, too
            found[other] = tuple(token for _, there in met for token in there)
    return found

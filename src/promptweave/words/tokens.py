"""Words of a prompt and their tokens, found by the tokenizer's character offsets."""

from __future__ import annotations

import difflib
import re
from copy import copy
from dataclasses import KW_ONLY, InitVar, dataclass, field, replace
from typing import Any

from promptweave.words.inversions import written_out
from promptweave.words.units import is_punctuation, key, owners, pieces, split

Selector = str | int | tuple[int, int]

LONGEST = 100_000  # a tokenizer without a limit reports a huge one


class WordNotFound(ValueError):
    """Raised for a selector that names no word of the prompt."""


class AmbiguousWord(ValueError):
    """Raised for a selector that names several words of the prompt."""


class TruncatedWord(ValueError):
    """Raised for a selector of a word beyond the last token that the model reads."""


@dataclass(frozen=True)
class Word:
    """A word: its text, its characters [start, end) in the prompt, and its token positions (BOS is 0)."""

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Words:
    """A prompt as the model sees it.

    `tokenizer`: a fast tokenizer, which knows character offsets. `at_most`: the number of tokens that the model reads,
    if it is less than the tokenizer's own limit. `vectors`: write out the vectors of textual inversion, as pipelines
    that can load one do. `number`: the number of the prompt in error messages. `strengths`: the weights of the
    characters, if the prompt was read as `emphasis.parse` does (then `prompt` is the text without syntax); `breaks`:
    the characters before which a chunk begins.

    `ids`: the token id of each of the model's `limit` columns. `words` leave out punctuation; `units` are words and
    runs of punctuation, in order, and together hold every token between BOS and EOS. `truncated`: the words that the
    model does not read to their end. `places`: the columns of the `length` tokens from BOS to EOS; `pieces`: their
    texts, for display; `scales`: their weights. `frame`: the columns of further start and end tokens, if a long prompt
    is read in chunks; all other columns are `pads`. `needed`: the number of chunks that the whole prompt takes.
    `schedule`: the prompt as it was written, if it changes from step to step; the words are then those of its end.

    Raises ValueError for a slow tokenizer, one without a limit, invalid Unicode, or an empty prompt (`allow_empty`).
    """

    prompt: str
    tokenizer: InitVar[Any]
    _: KW_ONLY
    allow_empty: InitVar[bool] = False
    at_most: InitVar[int | None] = None
    vectors: InitVar[bool] = True
    number: int | None = None
    strengths: tuple[float, ...] | None = field(default=None, repr=False)
    breaks: tuple[int, ...] = ()
    schedule: str | None = field(init=False, default=None)
    limit: int = field(init=False)
    ids: tuple[int, ...] = field(init=False)
    length: int = field(init=False)
    units: tuple[Word, ...] = field(init=False)
    words: tuple[Word, ...] = field(init=False)
    truncated: tuple[Word, ...] = field(init=False)
    pieces: tuple[str, ...] = field(init=False)
    frame: tuple[int, ...] = field(init=False, default=())
    places: tuple[int, ...] = field(init=False)
    scales: tuple[float, ...] = field(init=False, repr=False)
    needed: int = field(init=False)
    _cut: frozenset[Word] = field(init=False, repr=False)

    def __post_init__(self, tokenizer: Any, allow_empty: bool, at_most: int | None, vectors: bool) -> None:
        _check(self.prompt, tokenizer, allow_empty, at_most)
        limit = at_most or int(tokenizer.model_max_length)
        text, stands = written_out(self.prompt, tokenizer) if vectors else (self.prompt, None)
        padded = tokenizer(text, padding="max_length", max_length=limit, truncation=True)
        whole = tokenizer(
            text, truncation=False, verbose=False, return_offsets_mapping=True, return_special_tokens_mask=True
        )
        offsets: list[tuple[int, int]] = whole["offset_mapping"]
        if stands and text != self.prompt:
            offsets = [(stands[a][0], stands[b - 1][1]) if a < b else (a, b) for a, b in offsets]
        body = [index for index, special in enumerate(whole["special_tokens_mask"]) if not special]
        specials = len(whole["input_ids"]) - len(body)
        first = body[0] if body else 0
        end = first + min(len(body), limit - specials)  # after the last token that the model reads
        spans = split(self.prompt)
        owned = owners(offsets, body, spans, len(self.prompt))
        units = [
            Word(self.prompt[a:b], a, b, tuple(t for t in mine if t < end))
            for (a, b), mine in zip(spans, owned, strict=True)
        ]
        cut = frozenset(unit for unit, mine in zip(units, owned, strict=True) if mine and mine[-1] >= end)
        words = tuple(unit for unit in units if not is_punctuation(unit.text))
        length = min(len(whole["input_ids"]), limit)
        ids = tuple(int(token) for token in padded["input_ids"])
        weights = self.strengths or (1.0,) * len(self.prompt)
        starts = [a if first <= index < end and a < b else None for index, (a, b) in enumerate(offsets[:length])]
        values: dict[str, Any] = {
            "limit": limit, "ids": ids, "length": length, "places": tuple(range(length)), "units": tuple(units),
            "words": words, "_cut": cut, "truncated": tuple(word for word in words if word in cut),
            "pieces": pieces(tokenizer, ids[:length], offsets, self.prompt),
            "scales": tuple(1.0 if start is None else weights[start] for start in starts),
            "needed": max(1, -(-len(body) // max(1, limit - specials))),
        }  # fmt: skip
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def content(self) -> tuple[int, ...]:
        """The ids from BOS to EOS, without padding."""
        return tuple(self.ids[place] for place in self.places)

    @property
    def chunks(self) -> tuple[tuple[Word, ...], ...]:
        """The units, grouped by the spaces between them: "mirror," is one chunk of two units."""
        chunks: list[list[Word]] = []
        for unit in self.units:
            if chunks and chunks[-1][-1].end == unit.start:
                chunks[-1].append(unit)
            else:
                chunks.append([unit])
        return tuple(tuple(chunk) for chunk in chunks)

    def beside(self, other: Words) -> Words:
        """The same prompt read by two encoders whose tokens are concatenated: a word has its tokens of both.

        A word is cut off only if both encoders cut it off.
        """
        merged = {
            (unit.start, unit.end): replace(unit, tokens=unit.tokens + tuple(t + self.limit for t in twin.tokens))
            for unit, twin in zip(self.units, other.units, strict=True)
        }
        cut = {(unit.start, unit.end) for unit in self._cut} & {(unit.start, unit.end) for unit in other._cut}
        units = tuple(merged[unit.start, unit.end] for unit in self.units)
        words = tuple(merged[unit.start, unit.end] for unit in self.words)
        values: dict[str, Any] = {
            "limit": self.limit + other.limit, "ids": self.ids + other.ids, "units": units, "words": words,
            "_cut": frozenset(unit for span, unit in merged.items() if span in cut),
            "truncated": tuple(word for word in words if (word.start, word.end) in cut),
        }  # fmt: skip
        both = copy(self)
        for name, value in values.items():
            object.__setattr__(both, name, value)
        return both

    @property
    def pads(self) -> tuple[int, ...]:
        """The columns of the padding, in order."""
        taken = {*self.places, *self.frame}
        return tuple(column for column in range(self.limit) if column not in taken)

    def scheduled(self, prompt: str) -> Words:
        """These words, as the end of a prompt that changes from step to step."""
        made = copy(self)
        object.__setattr__(made, "schedule", prompt)
        return made

    def padded(self, tokens: int) -> Words:
        """The same prompt with `tokens` more columns, which hold no word."""
        wider = copy(self)
        object.__setattr__(wider, "limit", self.limit + tokens)
        return wider

    @property
    def cut(self) -> str | None:
        """The first word, or else the first punctuation mark, that the model does not read to its end."""
        return next((unit.text for unit in (*self.truncated, *self.units) if unit in self._cut), None)

    def find(self, selector: Selector, number: int | None = None) -> tuple[int, ...]:
        """Token positions (BOS is 0) of what a selector names, ignoring case.

        A selector is a word or a phrase, "cat#2" (the second cat), the position of a word in `words`, from 0, or a pair
        of character offsets [start, end). Raises WordNotFound, AmbiguousWord or TruncatedWord.
        """
        number = self.number if number is None else number
        place = "the prompt" if number is None else f"prompt {number}"
        chosen = self._select(selector, place)
        cut = [unit.text for unit in chosen if unit in self._cut]
        if cut:
            raise TruncatedWord(
                f"A chosen word must lie within the {self.limit} tokens that the model reads. "
                f"Received {selector!r} of {place}: {cut[0]!r} is cut off. Shorten the prompt."
            )
        tokens = tuple(token for unit in chosen for token in unit.tokens)
        if not tokens:
            raise WordNotFound(f"{selector!r} of {place} has no token of its own. Choose a word next to it.")
        return tokens

    def occurrences(self, text: str) -> tuple[tuple[Word, ...], ...]:
        """All runs of units that read as `text`, ignoring case."""
        wanted = [key(text[a:b]) for a, b in split(text)]
        have = [key(unit.text) for unit in self.units]
        count = len(wanted)
        starts = [i for i in range(len(have) - count + 1) if wanted and have[i : i + count] == wanted]
        return tuple(self.units[i : i + count] for i in starts)

    def _select(self, selector: Selector, place: str) -> tuple[Word, ...]:
        if isinstance(selector, str):
            return self._named(selector, place)
        if isinstance(selector, tuple):
            return self._between(*selector, place)
        if isinstance(selector, bool):
            raise ValueError(
                f"A word is chosen by its text, its position or two character offsets. Received {selector}."
            )
        if not 0 <= selector < len(self.words):
            raise WordNotFound(f"The words of {place} have positions 0 to {len(self.words) - 1}. Received {selector}.")
        return (self.words[selector],)

    def _between(self, start: int, end: int, place: str) -> tuple[Word, ...]:
        if not 0 <= start < end <= len(self.prompt):
            raise WordNotFound(
                f"A span must satisfy 0 <= start < end <= {len(self.prompt)}, the length of {place}. "
                f"Received {(start, end)}."
            )
        inside = tuple(unit for unit in self.units if unit.start < end and unit.end > start)
        if not inside:
            raise WordNotFound(
                f"A span must contain a part of a word. Received {(start, end)} of {place}, {self._quoted}."
            )
        return inside

    def _named(self, selector: str, place: str) -> tuple[Word, ...]:
        found, text, which = self.occurrences(selector), selector, None
        numbered = re.fullmatch(r"(.*\S)#([0-9]+)", selector, re.DOTALL)
        if numbered and not found:
            text, which = numbered[1], int(numbered[2])
            found = self.occurrences(text)
        if not found:
            raise WordNotFound(self._not_found(text, place))
        if which is not None and not 1 <= which <= len(found):
            raise WordNotFound(
                f"{text!r} occurs {len(found)} time(s) in {place}, {self._quoted}. Received {selector!r}."
            )
        if which is None and len(found) > 1:
            options = " or ".join(f'"{text}#{k}"' for k in range(1, len(found) + 1))
            raise AmbiguousWord(f"{text!r} occurs {len(found)} times in {place}, {self._quoted}. Write {options}.")
        return found[(which or 1) - 1]

    def _not_found(self, text: str, place: str) -> str:
        count = max(1, len(split(text)))
        runs = [self.units[i : i + count] for i in range(len(self.units) - count + 1)]
        near = {key(self.prompt[run[0].start : run[-1].end]): self.prompt[run[0].start : run[-1].end] for run in runs}
        close = difflib.get_close_matches(key(text), near, 1)
        hint = f" Did you mean {near[close[0]]!r}?" if close else ""
        names = ", ".join(dict.fromkeys(word.text for word in self.words))
        return f"{text!r} is not a word of {place}, {self._quoted}.\nWords: {names}.{hint}"

    @property
    def _quoted(self) -> str:
        return f'"{self.prompt}"'


def _check(prompt: str, tokenizer: Any, allow_empty: bool, at_most: int | None) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            "Words are found by character offsets, which only a fast tokenizer gives. "
            f"Received {type(tokenizer).__name__}. Load it with AutoTokenizer.from_pretrained(..., use_fast=True)."
        )
    if at_most is None and tokenizer.model_max_length > LONGEST:
        raise ValueError(
            f"The tokenizer must state the model's length. Received model_max_length={tokenizer.model_max_length}. "
            "Set tokenizer.model_max_length = 77, or what the model reads."
        )
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise ValueError(
            f"A prompt must be valid Unicode. Received {prompt!r}, which contains half a surrogate pair. Delete it."
        )
    if not prompt.strip() and not allow_empty:
        raise ValueError(f"A prompt must contain at least one word. Received {prompt!r}. Describe the image.")

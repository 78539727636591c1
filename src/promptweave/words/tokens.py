"""Words of a prompt and their tokens, found by the tokenizer's character offsets."""

from __future__ import annotations

from copy import copy
from dataclasses import KW_ONLY, InitVar, dataclass, field, replace
from typing import Any

from promptweave.core.shown import brief, short, shown
from promptweave.words.selecting import AmbiguousWord as AmbiguousWord
from promptweave.words.selecting import BadSelector as BadSelector
from promptweave.words.selecting import WordNotFound as WordNotFound
from promptweave.words.selecting import chosen, occurrences
from promptweave.words.units import is_punctuation as is_punctuation
from promptweave.words.units import joined, owners, pieces
from promptweave.words.units import key as key
from promptweave.words.vectors import written_out

Selector = str | int | tuple[int, int]

LONGEST = 100_000  # a tokenizer without a limit reports a huge one


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
    offsets: tuple[tuple[int, int, int], ...] = field(init=False, repr=False)  # columns of tokens, their characters

    def __repr__(self) -> str:
        return brief(self, short(self.prompt), f"{len(self.words)} words", f"{self.length} tokens")

    unknown: frozenset[int] = field(init=False, repr=False)  # columns of tokens that stand for unknown characters

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
        read = {index: offsets[index] for index in body}
        unknown = {index for index in body if whole["input_ids"][index] == getattr(tokenizer, "unk_token_id", None)}
        for index in sorted(unknown):  # with the marker of a word's start before it
            if index - 1 in read and not tokenizer.decode([whole["input_ids"][index - 1]]).strip():
                unknown.add(index - 1)
                read[index - 1] = read[index]
        spans = joined(self.prompt, [span for index, span in read.items() if index not in unknown])
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
            "offsets": tuple((index, *span) for index, span in read.items() if index < end),
            "unknown": frozenset(unknown),
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
        starts = {unit.start for unit in self.units} & {unit.start for unit in other.units}
        mine, theirs = self._divided(starts), other._divided(starts)
        units = tuple(
            replace(unit, tokens=unit.tokens + tuple(t + self.limit for t in twin.tokens))
            for (unit, _), (twin, _) in zip(mine, theirs, strict=True)
        )
        both_cut = [a and b for (_, a), (_, b) in zip(mine, theirs, strict=True)]
        cut = frozenset(unit for unit, gone in zip(units, both_cut, strict=True) if gone)
        words = tuple(unit for unit in units if not is_punctuation(unit.text))
        values: dict[str, Any] = {
            "limit": self.limit + other.limit, "ids": self.ids + other.ids, "units": units, "words": words,
            "_cut": cut, "truncated": tuple(word for word in words if word in cut),
            "offsets": (*self.offsets, *((token + self.limit, a, b) for token, a, b in other.offsets)),
            "unknown": self.unknown | {token + self.limit for token in other.unknown},
        }  # fmt: skip
        both = copy(self)
        for name, value in values.items():
            object.__setattr__(both, name, value)
        return both

    def _divided(self, starts: set[int]) -> list[tuple[Word, bool]]:
        """The units, joined so that they begin at `starts` alone, and whether each is cut off."""
        groups: list[list[Word]] = []
        for unit in self.units:
            if unit.start in starts:
                groups.append([unit])
            else:
                groups[-1].append(unit)
        return [
            (
                group[0] if len(group) == 1 else Word(
                    self.prompt[group[0].start : group[-1].end], group[0].start, group[-1].end,
                    tuple(token for unit in group for token in unit.tokens),
                ),
                any(unit in self._cut for unit in group),
            )
            for group in groups
        ]  # fmt: skip

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

    def find(self, selector: Any, number: int | None = None) -> tuple[int, ...]:
        """Token positions (BOS is 0) of what a selector names, ignoring case.

        A selector is a word or a phrase, "cat#2" (the second cat), the position of a word in `words`, from 0, or a pair
        of character offsets [start, end). Where words are not separated by spaces, as in Chinese, or carry particles,
        as in Korean, any part of the text is a word. Raises WordNotFound, AmbiguousWord, TruncatedWord or BadSelector.
        """
        number = self.number if number is None else number
        place = "the prompt" if number is None else f"prompt {number}"
        named = chosen(self, selector, place)
        cut = [unit.text for unit in named if unit in self._cut]
        if cut:
            raise TruncatedWord(
                f"A chosen word must lie within the {self.limit} tokens that the model reads. "
                f"Received {selector!r} of {place}: {cut[0]!r} is cut off. Shorten the prompt."
            )
        tokens = self.own(*named)
        if not tokens:
            raise WordNotFound(
                f"{shown(selector)} of {place} has no token of its own: the model reads it together with what stands "
                "before it, or does not know its characters. Choose a word next to it, or write it in other letters."
            )
        return tokens

    def own(self, *units: Word) -> tuple[int, ...]:
        """The tokens of units, without those that stand for unknown characters of other units too.

        A tokenizer that lacks a script may read a whole sentence in it as one unknown token, whose map is no word's.
        """
        tokens = tuple(token for unit in units for token in unit.tokens)
        if self.unknown.isdisjoint(tokens):
            return tokens
        start, end = units[0].start, units[-1].end
        outside = [unit for unit in self.units if unit.end <= start or unit.start >= end]
        spans = {token: (a, b) for token, a, b in self.offsets if token in self.unknown}
        shared = {token for token, (a, b) in spans.items() if any(u.start < b and u.end > a for u in outside)}
        return tuple(token for token in tokens if token not in shared)

    def occurrences(self, text: str) -> tuple[tuple[Word, ...], ...]:
        """All runs of units that read as `text`, ignoring case; in a script without spaces, all parts that do."""
        return occurrences(self, text)

    def part(self, start: int, end: int) -> tuple[Word, ...]:
        """The characters [start, end) as one word with the tokens that begin or end in them.

        A unit that the model does not read to its end is returned whole instead.
        """
        around = tuple(unit for unit in self.units if unit.start < end and unit.end > start)
        if any(unit in self._cut for unit in around):
            return around
        if around[0].start == start and around[-1].end == end:
            return around
        own = {token for unit in around for token in unit.tokens}
        tokens = tuple(token for token, a, b in self.offsets if token in own and a < end and b > start)
        return (Word(self.prompt[start:end], start, end, tokens),)


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

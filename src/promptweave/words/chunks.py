"""Long prompts in chunks: each is as long as the encoder reads, with a start and an end token of its own."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

from promptweave.words.tokens import Word, Words


def in_chunks(words: Words, tokenizer: Any, size: int, count: int) -> Words:
    """A prompt that was read whole, in `count` chunks of `size` tokens, which begin also at its breaks.

    The tokens of a chunk stand behind its start token; the end token follows the last of them, then padding.
    """
    width, places, chunk, place = size + 2, [0], 0, 0
    firsts = [min((t for u in words.units if u.start >= at for t in u.tokens), default=None) for at in words.breaks]
    for position in range(1, words.length - 1):
        begun = firsts.count(position)
        if begun or place == size:
            chunk, place = chunk + max(1, begun), 0
        places.append(chunk * width + 1 + place)
        place += 1
    inside = sum(column < count * width for column in places)
    kept = places[:inside]
    end = kept[-1] + 1
    ids = ([tokenizer.bos_token_id] + [tokenizer.pad_token_id] * (size + 1)) * count
    for column, token in zip(kept[1:], words.ids[1:], strict=False):
        ids[column] = token
    filled = {column // width: column for column in kept}  # the last token of each chunk
    for number in range(count):
        ids[filled.get(number, number * width) + 1] = tokenizer.eos_token_id

    def moved(unit: Word) -> Word:
        return replace(unit, tokens=tuple(kept[t] for t in unit.tokens if t < inside))

    units = tuple(map(moved, words.units))
    cut = frozenset(new for new, old in zip(units, words.units, strict=True) if len(new.tokens) < len(old.tokens))
    chosen = {(unit.start, unit.end) for unit in words.words}
    edges = [number * width + side for number in range(count) for side in (0, size + 1)]
    values: dict[str, Any] = {
        "limit": count * width, "ids": tuple(ids), "length": inside + 1, "places": (*kept, end), "units": units,
        "words": tuple(unit for unit in units if (unit.start, unit.end) in chosen), "_cut": cut,
        "truncated": tuple(unit for unit in units if unit in cut and (unit.start, unit.end) in chosen),
        "pieces": (*words.pieces[:inside], words.pieces[-1]), "scales": (*words.scales[:inside], 1.0),
        "offsets": tuple((kept[token], a, b) for token, a, b in words.offsets if token < inside),
        "unknown": frozenset(kept[token] for token in words.unknown if token < inside),
        "frame": tuple(edge for edge in edges if edge not in (*kept, end)), "needed": chunk + 1,
    }  # fmt: skip
    made = copy(words)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made

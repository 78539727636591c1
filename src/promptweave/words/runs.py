"""What two prompts share: their units in order, and between them the runs that differ."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from promptweave.words.tokens import Word
from promptweave.words.units import is_punctuation, is_spelt, key

Units = tuple[Word, ...]
Tokens = tuple[int, ...]

LONGEST = 12  # letters of a word in a script that spells its words without spaces; a longer run is a phrase
CHANCE = 3  # fewer equal letters between letters that differ are chance, as the "a" in "cat" and "hare"


def common_tokens(source: Sequence[Hashable], target: Sequence[Hashable]) -> list[int]:
    """For each item of the target, the index of the matching item of the source, or -1.

    Global alignment (Needleman & Wunsch 1970) with gap 0, match 1, mismatch -1: a mismatch never pays off, so the
    matches are a longest common subsequence. Of equally long ones, the earliest in the target is taken.

    >>> common_tokens("a cat".split(), "a black cat".split())
    [0, -1, 1]
    """
    rows, columns = len(source), len(target)
    score = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            diagonal = score[i - 1][j - 1] + (1 if source[i - 1] == target[j - 1] else -1)
            score[i][j] = max(score[i][j - 1], score[i - 1][j], diagonal)
    mapper = [-1] * columns
    i, j = rows, columns
    while i and j:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            mapper[j] = i
    return mapper


def keys_of(units: Units) -> list[str]:
    return [key(unit.text) for unit in units]


def tokens_of(units: Units) -> Tokens:
    return tuple(token for unit in units for token in unit.tokens)


def same_shape(old: Units, new: Units) -> bool:
    """Whether both have words and punctuation marks in the same order."""
    a, b = _spelt(old), _spelt(new)
    one_word_each = all(len(word) <= LONGEST for word in (*a, *b))
    return one_word_each and [is_punctuation(w[0].text) for w in a] == [is_punctuation(w[0].text) for w in b]


def one_for_one(old: Units, new: Units) -> list[tuple[Units, Units]]:
    """Pairs of single words if the shapes agree, else both runs as one pair."""
    return list(zip(_spelt(old), _spelt(new), strict=True)) if same_shape(old, new) else [(old, new)]


def runs(source: Units, target: Units) -> list[tuple[Units, Units]]:
    """Shared units one by one, and between them the pairs of runs that differ; one of a pair may be empty."""
    old, new = keys_of(source), keys_of(target)
    mapper = common_tokens(old, new)
    in_place = [i if i < len(old) and old[i] == new[i] else -1 for i in range(len(new))]
    if len(old) == len(new) and sum(i >= 0 for i in in_place) == sum(i >= 0 for i in mapper):
        mapper = in_place  # "red car, blue sky" -> "blue car, red sky": nothing moved
    mapper = _without_chance(source, target, mapper)
    made: list[tuple[Units, Units]] = []
    i = j = 0
    for column, row in [*enumerate(mapper), (len(target), len(source))]:
        if row < 0:
            continue
        if i < row or j < column:
            made.append((source[i:row], target[j:column]))
        if column < len(target):
            made.append((source[row : row + 1], target[column : column + 1]))
        i, j = row + 1, column + 1
    return made


def _spelt(units: Units) -> list[Units]:
    """Single units, but neighbouring letters of a script that spells its words without spaces as one word."""
    words: list[Units] = []
    for unit in units:
        if words and _next_letter(words[-1][-1], unit):
            words[-1] = (*words[-1], unit)
        else:
            words.append((unit,))
    return words


def _next_letter(unit: Word, following: Word) -> bool:
    return unit.end == following.start and is_spelt(unit.text) and is_spelt(following.text)


def _without_chance(source: Units, target: Units, mapper: list[int]) -> list[int]:
    """The mapper without the few letters inside a spelt word that happen to be in its counterpart too."""
    made, first = list(mapper), 0
    while first < len(mapper):
        last = first
        while last + 1 < len(mapper) and mapper[first] >= 0 and mapper[last + 1] == mapper[last] + 1:
            last += 1
        if mapper[first] >= 0 and last - first + 1 < CHANCE:
            top, bottom = mapper[first], mapper[last]
            begun = _goes_on(target, first - 1) or _goes_on(source, top - 1)
            if begun and (_goes_on(target, last) or _goes_on(source, bottom)):
                made[first : last + 1] = [-1] * (last - first + 1)
        first = last + 1
    return made


def _goes_on(units: Units, place: int) -> bool:
    """Whether a spelt word goes on from a unit to the next."""
    return 0 <= place < len(units) - 1 and _next_letter(units[place], units[place + 1])

"""Slow, obvious forms of Prompt-to-Prompt's word handling, after the description of the authors' code."""

from __future__ import annotations

from typing import Any

LENGTH = 77


def word_positions(text: str, place: str | int, tokenizer: Any) -> list[int]:
    """Token positions of a word by adding up the lengths of decoded pieces; a string means every equal word."""
    words = text.split(" ")
    wanted = [place] if isinstance(place, int) else [i for i, word in enumerate(words) if word == place]
    positions, current, length = [], 0, 0
    for k, token in enumerate(tokenizer.encode(text)[1:-1]):
        length += len(tokenizer.decode([token]).strip().strip("#"))
        if current in wanted:
            positions.append(k + 1)
        if length >= len(words[current]):
            current, length = current + 1, 0
    return positions


def replace_matrix(source: str, target: str, tokenizer: Any, *, shift_the_tail: bool) -> list[list[float]]:
    """M of a word swap. Without `shift_the_tail`, what follows the last swapped word keeps its own column number."""
    old, new = source.split(" "), target.split(" ")
    if len(old) != len(new):
        raise ValueError("the prompts have different numbers of words")
    differ = [i for i in range(len(old)) if old[i] != new[i]]
    sources = [word_positions(source, i, tokenizer) for i in differ]
    targets = [word_positions(target, i, tokenizer) for i in differ]
    matrix = [[0.0] * LENGTH for _ in range(LENGTH)]
    i = j = c = 0
    while i < LENGTH and j < LENGTH:
        if c < len(differ) and sources[c][0] == i:
            for a, row in enumerate(sources[c]):
                for b, column in enumerate(targets[c]):
                    if len(sources[c]) != len(targets[c]):
                        matrix[row][column] = 1 / len(targets[c])
                    elif a == b:
                        matrix[row][column] = 1.0
            i, j, c = i + len(sources[c]), j + len(targets[c]), c + 1
        else:
            matrix[i if c < len(differ) or shift_the_tail else j][j] = 1.0
            i, j = i + 1, j + 1
    if shift_the_tail:
        for row in range(i, LENGTH):
            matrix[row][LENGTH - 1] = 1.0
    return matrix


def aligned(x: list[Any], y: list[Any]) -> list[int]:
    """Needleman-Wunsch by a table of back-pointers: gap 0, match 1, mismatch -1; ties: left, then up, then diagonal."""
    score = {(i, 0): 0 for i in range(len(x) + 1)} | {(0, j): 0 for j in range(len(y) + 1)}
    back = {(i, 0): "up" for i in range(1, len(x) + 1)} | {(0, j): "left" for j in range(1, len(y) + 1)}
    for i in range(1, len(x) + 1):
        for j in range(1, len(y) + 1):
            left, up = score[i, j - 1], score[i - 1, j]
            diagonal = score[i - 1, j - 1] + (1 if x[i - 1] == y[j - 1] else -1)
            score[i, j] = max(left, up, diagonal)
            back[i, j] = "left" if score[i, j] == left else "up" if score[i, j] == up else "diagonal"
    result: list[int] = []
    i, j = len(x), len(y)
    while (i, j) != (0, 0):
        step = back[i, j]
        if step == "diagonal":
            i, j = i - 1, j - 1
            result.insert(0, i)
        elif step == "left":
            j -= 1
            result.insert(0, -1)
        else:
            i -= 1
    return result


def refine_positions(x: list[int], y: list[int]) -> tuple[list[int], list[float]]:
    """Mapper and alphas over 77 tokens, padding mapped to its own position as in the authors' code."""
    found = aligned(x, y)
    mapper = found + list(range(len(y), LENGTH))
    return mapper, [0.0 if index == -1 else 1.0 for index in mapper]


def longest_common(x: list[Any], y: list[Any]) -> int:
    """Length of a longest common subsequence."""
    best = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            best[i + 1][j + 1] = best[i][j] + 1 if a == b else max(best[i][j + 1], best[i + 1][j])
    return best[-1][-1]


def refine_by_words(source: Any, target: Any) -> list[int]:
    """The mapper of the target's tokens from start to end: words aligned first, then the tokens of equal words."""
    old, new = ([unit.text.lower() for unit in words.units] for words in (source, target))
    found = aligned(old, new)
    in_place = [i if i < len(old) and old[i] == word else -1 for i, word in enumerate(new)]
    if len(old) == len(new) and sum(i >= 0 for i in in_place) == sum(i >= 0 for i in found):
        found = in_place
    mapper = [-1] * target.length
    mapper[0], mapper[-1] = 0, source.length - 1
    for word, index in enumerate(found):
        if index >= 0:
            for a, b in zip(source.units[index].tokens, target.units[word].tokens, strict=True):
                mapper[b] = a
    return mapper

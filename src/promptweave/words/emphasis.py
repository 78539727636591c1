"""Prompt weights in the syntax of the web user interfaces: (word) means 1.1, (word:1.3) 1.3, and [word] 1 / 1.1."""

from __future__ import annotations

import re
from dataclasses import dataclass

STEP = 1.1
TOKEN = re.compile(r"\\[()\[\]\\]|[()\[\]]|:\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*(?=\))|[^\\()\[\]:]+|.", re.DOTALL)


@dataclass(frozen=True)
class Emphasis:
    """A prompt without its brackets, and the weight of each of its characters."""

    text: str
    strengths: tuple[float, ...]

    def of(self, start: int, end: int) -> float:
        """The weight of the token with the characters [start, end): that of the first one."""
        return self.strengths[start] if start < end else 1.0


def parse(prompt: str) -> Emphasis:
    r"""Read the brackets of a prompt; \( and \) are plain characters, and so is a bracket that is never closed.

    >>> parse("a (red:1.5) car, [dull] \\(toy\\)").text
    'a red car, dull (toy)'
    >>> [round(parse("((a)) [b]").of(i, i + 1), 3) for i in (0, 2)]
    [1.21, 0.909]
    """
    text: list[str] = []
    strengths: list[float] = []
    opened: list[tuple[str, int]] = []  # a bracket, and where its content begins
    for token in TOKEN.findall(prompt):
        if token in "([":
            opened.append((token, len(text)))
        elif token.startswith(":") and len(token) > 1 and opened and opened[-1][0] == "(":
            _scale(strengths, opened[-1][1], float(token[1:]) / STEP)  # the closing bracket multiplies by STEP
        elif token in (")", "]") and opened and opened[-1][0] == {")": "(", "]": "["}[token]:
            _, first = opened.pop()
            _scale(strengths, first, STEP if token == ")" else 1 / STEP)
        else:
            plain = token[1:] if token.startswith("\\") and len(token) == 2 else token
            text += plain
            strengths += [1.0] * len(plain)
    for bracket, first in reversed(opened):
        text.insert(first, bracket)
        strengths.insert(first, 1.0)
    return Emphasis("".join(text), tuple(strengths))


def _scale(strengths: list[float], first: int, factor: float) -> None:
    strengths[first:] = [value * factor for value in strengths[first:]]

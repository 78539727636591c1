r"""The prompt syntax of the web user interfaces: weights and chunks.

(word) means a weight of 1.1, (word:1.3) 1.3, and [word] 1 / 1.1; BREAK begins a new chunk; a backslash makes the next
bracket, colon or bar a plain character. AND and `<lora:name:1>`, which no text can stand for, are refused by name.
`words.changes` reads what changes from step to step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NoReturn

STEP = 1.1
LARGEST = 100.0  # of a weight; "-2 to 10 is usual"
SPECIAL = "()[]\\"  # characters that a backslash makes plain, as in the web user interfaces; here also : and |
TOKEN = re.compile(
    r"\\[()\[\]\\:|]"
    r"|\s*\bBREAK\b\s*"
    r"|\bAND\b"
    r"|<\w+:[^<>\s][^<>]*>"
    r"|[()\[\]|]"
    r"|:\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*(?=\))"
    r"|\w+|\s+|.",
    re.DOTALL,
)
SCHEDULE = re.compile(r"\s*(?:\d+\.?\d*|\.\d+)\s*")  # the step or fraction at the end of [cat:dog:0.5]


class PromptSyntax(ValueError):
    """A prompt uses syntax of the web user interfaces that has no meaning here."""


@dataclass(frozen=True)
class Emphasis:
    """A prompt without its syntax.

    `strengths`: the weight of each character of `text`; `origins`: its place in the prompt; `breaks`: the characters
    before which a new chunk begins.
    """

    text: str
    strengths: tuple[float, ...]
    origins: tuple[int, ...]
    breaks: tuple[int, ...] = ()

    @classmethod
    def none(cls, prompt: str) -> Emphasis:
        """The prompt, read as it is written."""
        return cls(prompt, (1.0,) * len(prompt), tuple(range(len(prompt))))


@dataclass
class _Bracket:
    """An open bracket: its place in the prompt, where its content begins in the text, and its colons and bars."""

    kind: str
    place: int
    first: int
    colons: list[int]
    bars: bool = False


def parse(prompt: str) -> Emphasis:
    r"""Read the syntax of a prompt; \( and \) are plain characters, and so is a bracket without its counterpart.

    Raises PromptSyntax for what cannot be read, and for weights beyond -100 to 100.

    >>> parse("a (red:1.5) car, [dull] \\(toy\\)").text
    'a red car, dull (toy)'
    >>> [round(parse("((a)) [b]").strengths[i], 3) for i in (0, 2)]
    [1.21, 0.909]
    >>> parse("a cat BREAK a dog").breaks
    (6,)
    """
    text: list[str] = []
    strengths: list[float] = []
    origins: list[int] = []
    breaks: list[int] = []
    opened: list[_Bracket] = []

    def put(plain: str, place: int) -> None:
        text.extend(plain)
        strengths.extend([1.0] * len(plain))
        origins.extend(range(place, place + len(plain)))

    def scale(first: int, factor: float) -> None:
        strengths[first:] = [value * factor for value in strengths[first:]]

    for found in TOKEN.finditer(prompt):
        token, place = found[0], found.start()
        inner = opened[-1] if opened else None
        if token in ("(", "["):
            opened.append(_Bracket(token, place, len(text), []))
        elif token[0] == ":" and len(token) > 1 and inner and inner.kind == "(":
            scale(inner.first, float(token[1:]) / STEP)  # the closing bracket multiplies by STEP
        elif token in (")", "]") and inner and inner.kind == {")": "(", "]": "["}[token]:
            _check_bracket(prompt, inner, place)
            opened.pop()
            scale(inner.first, STEP if token == ")" else 1 / STEP)
        elif token.strip() == "BREAK":
            if text and found.end() < len(prompt):
                put(" ", place)
            breaks.append(len(text))
        elif token == "AND" or token[0] == "<" and len(token) > 1:
            _refuse(prompt, token)
        else:
            if token in (":", "|") and inner and inner.kind == "[":
                inner.colons += [place] if token == ":" else []
                inner.bars |= token == "|"
            escaped = len(token) == 2 and token[0] == "\\"
            put(token[1:] if escaped else token, place + escaped)
    for bracket in reversed(opened):
        text.insert(bracket.first, bracket.kind)
        strengths.insert(bracket.first, 1.0)
        origins.insert(bracket.first, bracket.place)
        breaks = [at + (at > bracket.first) for at in breaks]
    wild = next((value for value in strengths if not math.isfinite(value) or abs(value) > LARGEST), None)
    if wild is not None:
        raise PromptSyntax(
            f"A prompt weight is from {-LARGEST:g} to {LARGEST:g} (0.5 to 1.5 is usual). Received {wild:g} in "
            f'"{shortened(prompt)}". Write a smaller one, or fewer brackets.'
        )
    return Emphasis("".join(text), tuple(strengths), tuple(origins), tuple(breaks))


def written(text: str, strengths: tuple[float, ...], breaks: tuple[int, ...] = ()) -> str:
    """The inverse of `parse`: a prompt that reads as `text` with these weights and breaks."""

    def parts() -> Iterator[str]:
        chunk = [sum(at <= place for at in breaks) for place in range(len(text))]
        before = 0
        for (number, strength), group in groupby(range(len(text)), lambda i: (chunk[i], strengths[i])):
            yield " BREAK " * (number - before)
            before = number
            plain = "".join(_plain(text[i]) for i in group)
            yield plain if strength == 1 else f"({plain}:{strength:.17g})"
        yield " BREAK " * (len(breaks) - before)

    return "".join(parts())


def _plain(character: str) -> str:
    return f"\\{character}" if character in SPECIAL + ":|" else character


def _check_bracket(prompt: str, bracket: _Bracket, end: int) -> None:
    """Raise PromptSyntax for square brackets that change the text from step to step."""
    changing = bracket.colons and SCHEDULE.fullmatch(prompt[bracket.colons[-1] + 1 : end])
    if bracket.kind == "[" and (bracket.bars or changing):
        raise PromptSyntax(
            f"{prompt[bracket.place : end + 1]} changes from step to step, which only the prompts and the negative "
            f'prompt of a run can. Received it in "{shortened(prompt)}", which is read in another place. Write one '
            "text, or \\: and \\| for plain characters."
        )


def _refuse(prompt: str, token: str) -> NoReturn:
    if token == "AND":
        raise PromptSyntax(
            "AND joins the predictions of several prompts, which a prompt cannot do here. Received it in "
            f'"{shortened(prompt)}". Guide towards further texts with promptweave sega --concept, keep the parts of '
            "one prompt apart with promptweave compose, or write and."
        )
    raise PromptSyntax(
        f'{token} names a file of weights, which a prompt cannot load here. Received it in "{shortened(prompt)}". '
        "Load it into the pipeline, pipeline.load_lora_weights(...), give that to load(pipeline), and leave it out of "
        "the prompt."
    )


def shortened(prompt: str) -> str:
    return prompt if len(prompt) <= 120 else f"{prompt[:117]}..."

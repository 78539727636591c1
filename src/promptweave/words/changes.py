r"""Prompts that change from step to step, in the syntax of the web user interfaces.

[cat:dog:0.5] is "cat" in the first half of the steps and "dog" after it, [dog:0.5] adds, [cat::0.5] removes; a number
without a point counts steps. [cat|dog] alternates from step to step. Brackets may be nested, and a backslash makes a
colon, a bar or a bracket plain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from promptweave.words.emphasis import SCHEDULE, TOKEN, PromptSyntax, shortened

END = 10**6  # a step after all others
CLOSING = {"(": ")", "[": "]"}


@dataclass
class _Bracket:
    """An open bracket, and its content in parts between colons and bars."""

    kind: str
    parts: list[str] = field(default_factory=lambda: [""])
    marks: list[str] = field(default_factory=list[str])

    def add(self, text: str) -> None:
        self.parts[-1] += text

    def mark(self, mark: str) -> None:
        self.marks.append(mark)
        self.parts.append("")

    @property
    def content(self) -> str:
        """What was read, as it was written."""
        return self.parts[0] + "".join(mark + part for mark, part in zip(self.marks, self.parts[1:], strict=True))


def at_step(prompt: str, step: int, steps: int) -> str:
    """The prompt at a step, from 0, of a run of `steps`; other syntax stays as it is.

    >>> [at_step("a [cat:dog:0.5]", step, 2) for step in (0, 1)]
    ['a cat', 'a dog']
    >>> at_step("a [cat|dog]", 3, 8)
    'a dog'
    """
    whole = _Bracket("")
    opened = [whole]
    for found in TOKEN.finditer(prompt):
        token, inner = found[0], opened[-1]
        if token in CLOSING:
            opened.append(_Bracket(token))
        elif token == CLOSING.get(inner.kind):
            opened.pop()
            chosen = _chosen(inner, step, steps, prompt) if inner.kind == "[" else None
            opened[-1].add(f"{inner.kind}{inner.content}{token}" if chosen is None else chosen)
        elif token in (":", "|") and inner.kind == "[":
            inner.mark(token)
        else:
            inner.add(token)
    while len(opened) > 1:  # brackets that are never closed
        left = opened.pop()
        opened[-1].add(left.kind + left.content)
    return whole.content


def phases(prompt: str, steps: int) -> tuple[str, ...]:
    """The prompt at each of the steps."""
    return tuple(at_step(prompt, step, steps) for step in range(steps)) if "[" in prompt else (prompt,) * steps


def at_end(prompt: str) -> str:
    """The prompt after its last change."""
    return at_step(prompt, END, END) if "[" in prompt else prompt


def _chosen(bracket: _Bracket, step: int, steps: int, prompt: str) -> str | None:
    """What a square bracket stands for at a step, or None if it does not change."""
    if "|" in bracket.marks:
        texts = [""]
        for mark, part in zip(["", *bracket.marks], bracket.parts, strict=True):
            texts = [*texts, part] if mark == "|" else [*texts[:-1], texts[-1] + (mark + part)]
        return texts[step % len(texts)]
    if not bracket.marks or not SCHEDULE.fullmatch(bracket.parts[-1]):
        return None
    *texts, number = bracket.parts
    if len(texts) > 2:
        raise PromptSyntax(
            f'[from:to:when] has at most two texts. Received [{bracket.content}] in "{shortened(prompt)}". Nest them, '
            "[a:[b:c:0.6]:0.3], or write \\: for a plain colon."
        )
    before, after = texts if len(texts) == 2 else ("", texts[0])
    when = int(float(number) * steps) if "." in number else int(number)
    return before if step < when else after

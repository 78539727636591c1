"""Tokens of textual inversion that stand for several vectors, written out as the pipelines of diffusers do.

An embedding of n vectors, loaded as "<toy>", is n tokens of the tokenizer: "<toy>", "<toy>_1" ... The prompt's "<toy>"
is read as all of them (Gal et al. 2022, arXiv 2208.01618; `maybe_convert_prompt` of diffusers).
"""

from __future__ import annotations

import re
from typing import Any


def written_out(prompt: str, tokenizer: Any) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The prompt with all vectors written out, and for each of its characters the characters [start, end) of `prompt`
    that it stands for.

    A name is written out wherever it stands, as in diffusers; of two that share a beginning, the longer one.
    """
    plain = tuple((place, place + 1) for place in range(len(prompt)))
    known = tokenizer.added_tokens_encoder
    several = [token for token in known if f"{token}_1" in known]
    if several:
        read = set(tokenizer.tokenize(prompt))
        several = [token for token in several if token in read]
    if not several:
        return prompt, plain
    text, stands = "", list[tuple[int, int]]()
    pattern = "|".join(map(re.escape, sorted(several, key=len, reverse=True)))
    done = 0
    for found in re.finditer(pattern, prompt):
        text += prompt[done : found.start()]
        stands += plain[done : found.start()]
        vectors, number = found[0], 1
        while f"{found[0]}_{number}" in known:
            vectors, number = f"{vectors} {found[0]}_{number}", number + 1
        text += vectors
        stands += [found.span()] * len(vectors)
        done = found.end()
    return text + prompt[done:], (*stands, *plain[done:])

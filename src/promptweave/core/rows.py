"""Who and what: the rows of a batch by name, and the one call that evaluates a site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from promptweave.core.pattern import Pattern, Softmax, Term

MERGED = 4  # so many pieces are copied together for one call; for fewer the copies cost more than the calls
Branch = Literal["uncond", "cond"]
Stack = Float[Tensor, "batch heads queries dim"]
Keys = Float[Tensor, "batch heads keys dim"]


@dataclass(frozen=True)
class Layout:
    """How a batch is laid out: by branch, then prompt (0 is the source), then image (seed).

    The prompts before `first` are not computed: their rows come from a recording.
    """

    branches: tuple[Branch, ...]
    prompts: int
    images: int = 1
    first: int = 0

    @property
    def size(self) -> int:
        """Rows of the batch."""
        return len(self.branches) * (self.prompts - self.first) * self.images

    def slice(self, branch: Branch, prompt: int) -> slice:
        """Where the images of a prompt stand."""
        if not 0 <= prompt < self.prompts:
            raise IndexError(f"A batch of {self.prompts} prompts has rows 0 to {self.prompts - 1}. Received {prompt}.")
        if prompt < self.first:
            raise ValueError(
                f"Prompt {prompt} comes from a recording, which holds its conditional attention only. "
                f"Received branch {branch!r}. Edit without a recording."
            )
        if branch not in self.branches:
            raise ValueError(
                f"This batch has the branches {self.branches}; uncond is there with guidance only. Received {branch!r}."
            )
        begin = (self.branches.index(branch) * (self.prompts - self.first) + prompt - self.first) * self.images
        return slice(begin, begin + self.images)


class NotRecorded(ValueError):
    """Something of the source that a recording does not hold."""


@dataclass(frozen=True, eq=False)
class Row:
    """One prompt of one branch at a site, all its images: q, k, v [images, heads, tokens, dim] and who looks where.

    `values` is v; a recording may do without.
    """

    q: Float[Tensor, "images heads queries dim"]
    k: Float[Tensor, "images heads keys dim"]
    values: Float[Tensor, "images heads values dim"] | None
    edited: Pattern | None = None

    @property
    def v(self) -> Float[Tensor, "images heads values dim"]:
        """The values; raises NotRecorded if the row comes from a recording without them."""
        if self.values is None:
            raise NotRecorded(
                "A control reads the source's values, and this recording was made without them. "
                "Record with values=True, or edit without a recording."
            )
        return self.values

    @cached_property
    def pattern(self) -> Pattern:
        """The attention of the row: softmax(q k^T / sqrt(dim)) unless a control changed it."""
        return self.edited or Pattern.of(self.q, self.k)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a batch at one site: `rows["cond"][1]` is the first target. Immutable; `put` gives changed rows."""

    q: Stack
    k: Keys
    v: Keys
    layout: Layout
    given: Callable[[int], Row] | None = None  # conditional rows of the prompts that a recording holds
    project: Callable[[Tensor], Keys] | None = None  # the layer's keys of a text
    beside: Mapping[str, Rows] = field(default_factory=dict[str, "Rows"])  # of a control's extra predictions, by name
    _changed: Mapping[tuple[Branch, int], Row] = field(default_factory=dict[tuple[Branch, int], Row])
    _seen: dict[tuple[Branch, int], Row] = field(default_factory=dict[tuple[Branch, int], Row])

    def __getitem__(self, branch: Branch) -> _Branch:
        return _Branch(self, branch)

    def row(self, branch: Branch, prompt: int) -> Row:
        """The row as the controls so far left it."""
        return self._changed.get((branch, prompt)) or self.original(branch, prompt)

    def original(self, branch: Branch, prompt: int) -> Row:
        """The row as the network made it."""
        key = (branch, prompt)
        if key not in self._seen and branch == "cond" and self.given and prompt < self.layout.first:
            self._seen[key] = self.given(prompt)
        if key not in self._seen:
            where = self.layout.slice(branch, prompt)
            self._seen[key] = Row(self.q[where], self.k[where], self.v[where])
        return self._seen[key]

    def put(self, branch: Branch, prompt: int, *, pattern: Pattern | None = None, **tensors: Tensor) -> Rows:
        """Change q, k, v or the pattern of a row. Without `pattern`, new q or k make a new default pattern."""
        row = self.row(branch, prompt)
        keep = row.edited if not {"q", "k"} & set(tensors) else None
        renamed = {"values" if name == "v" else name: tensor for name, tensor in tensors.items()}
        changes: dict[str, Any] = {**renamed, "edited": pattern or keep}
        return replace(self, _changed={**self._changed, (branch, prompt): replace(row, **changes)})

    def keys_of(self, texts: Float[Tensor, "texts tokens dim"]) -> Float[Tensor, "texts heads tokens head"]:
        """The keys that the layer, of cross-attention, makes of other encodings."""
        if self.project is None:
            raise ValueError("Only a cross-attention layer makes keys of a text. This one has no text of its own.")
        return self.project(texts)

    @property
    def touched(self) -> bool:
        """Whether any control changed any row."""
        return bool(self._changed)

    def evaluate(self) -> Stack:
        """The outputs [batch, heads, queries, dim]."""
        return evaluate([self])

    def parts(self, calls: Calls) -> Iterator[Part]:
        """What each run of batch rows is the sum of; soft-max terms enter `calls`."""
        for first, count, row in self._runs():
            if row is None:
                where = slice(first, first + count)
                yield [(None, *_enter(calls, self.q[where], self.k[where], self.v[where]))]
                continue
            terms: Part = []
            for term in row.pattern.terms:
                kernel, v = term.kernel, term.values(row.v)
                if isinstance(kernel, Softmax) and kernel.bias is None:  # a bias keeps a term out of the common call
                    terms.append((term, *_enter(calls, kernel.q, kernel.k, v)))
                else:
                    terms.append((term, kernel.apply(v), 0))
            yield terms

    def _runs(self) -> Iterator[tuple[int, int, Row | None]]:
        """(first batch row, batch rows, row): changed rows one by one, unchanged ones in runs with None."""
        first, images = 0, self.layout.images
        begin = 0
        for branch in self.layout.branches:
            for prompt in range(self.layout.first, self.layout.prompts):
                row = self._changed.get((branch, prompt))
                if row is not None:
                    if begin > first:
                        yield first, begin - first, None
                    yield begin, images, row
                    first = begin + images
                begin += images
        if begin > first:
            yield first, begin - first, None


@dataclass(frozen=True)
class _Branch:
    rows: Rows
    name: Branch

    def __getitem__(self, prompt: int) -> Row:
        return self.rows.row(self.name, prompt)

    def __len__(self) -> int:
        return self.rows.layout.prompts


class _Call:
    """Queries, keys and values that fit into one call."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Tensor, Tensor, Tensor]] = []
        self.outputs: tuple[Tensor, ...] = ()

    def run(self) -> None:
        if len(self.pieces) < MERGED:
            self.outputs = tuple(F.scaled_dot_product_attention(*piece) for piece in self.pieces)
            return
        q, k, v = (torch.cat(tensors) for tensors in zip(*self.pieces, strict=True))
        sizes = [len(piece[0]) for piece in self.pieces]
        self.outputs = torch.split(F.scaled_dot_product_attention(q, k, v), sizes)


Calls = dict[tuple[int, int], _Call]
Part = list[tuple[Term | None, _Call | Tensor, int]]


def evaluate(batches: Sequence[Rows]) -> Stack:
    """The outputs of batches that stand one behind the other: rows nobody changed as views, many soft-max terms of
    equal shape in one call."""
    calls: Calls = {}
    parts = [part for rows in batches for part in rows.parts(calls)]
    for call in calls.values():
        call.run()
    return torch.cat([_total(part) for part in parts])


def _enter(calls: Calls, q: Tensor, k: Tensor, v: Tensor) -> tuple[_Call, int]:
    call = calls.setdefault((q.shape[-2], k.shape[-2]), _Call())
    call.pieces.append((q, k, v))
    return call, len(call.pieces) - 1


def _total(terms: Part) -> Tensor:
    outputs: list[Tensor] = []
    for term, source, place in terms:
        output = source.outputs[place] if isinstance(source, _Call) else source
        outputs.append(output if term is None else term.gated(output))
    total = outputs[0]
    for output in outputs[1:]:
        total = total + output
    return total

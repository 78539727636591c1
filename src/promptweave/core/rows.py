"""The rows of a batch by name, and the one function that evaluates a site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from promptweave.core.memory import Layer
from promptweave.core.pattern import Attend, Pattern, Softmax, Term

MERGED = 4  # from so many pieces on, they are concatenated for one call; for fewer, copying costs more than calls
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
        """Number of rows in the batch."""
        return len(self.branches) * (self.prompts - self.first) * self.images

    def slice(self, branch: Branch, prompt: int) -> slice:
        """The batch rows of a prompt's images. Raises IndexError or ValueError if the batch does not have them."""
        if not 0 <= prompt < self.prompts:
            raise IndexError(f"A batch of {self.prompts} prompts has rows 0 to {self.prompts - 1}. Received {prompt}.")
        if prompt < self.first:
            raise ValueError(
                f"Prompt {prompt} comes from a recording, which holds its conditional attention only. "
                f"Received branch {branch!r}. Edit without a recording."
            )
        if branch not in self.branches:
            raise ValueError(
                f"This batch has the branches {self.branches}; uncond exists only with guidance. Received {branch!r}."
            )
        begin = (self.branches.index(branch) * (self.prompts - self.first) + prompt - self.first) * self.images
        return slice(begin, begin + self.images)


class NotRecorded(ValueError):
    """Raised where a control reads something of the source that the recording does not hold."""


@dataclass(frozen=True, eq=False)
class Row:
    """One prompt of one branch at a site, with all its images: q, k, v [images, heads, tokens, dim] and the pattern.

    `values` is v, or None in a recording without values. `edited`: the pattern that a control has put, if any.
    """

    q: Float[Tensor, "images heads queries dim"]
    k: Float[Tensor, "images heads keys dim"]
    values: Float[Tensor, "images heads values dim"] | None
    edited: Pattern | None = None

    @property
    def v(self) -> Float[Tensor, "images heads values dim"]:
        """The values. Raises NotRecorded if the row comes from a recording without them."""
        if self.values is None:
            raise NotRecorded(
                "A control reads the source's values, and this recording was made without them. "
                "Record with values=True, or edit without a recording."
            )
        return self.values

    @cached_property
    def pattern(self) -> Pattern:
        """The row's attention: softmax(q k^T / sqrt(dim)), unless a control changed it."""
        return self.edited or Pattern.of(self.q, self.k)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a batch at one site: `rows["cond"][1]` is the first target. Immutable: `put` returns new rows."""

    q: Stack
    k: Keys
    v: Keys
    layout: Layout
    given: Callable[[int], Row] | None = None  # the conditional row of a recorded prompt
    project: Callable[[Tensor], Keys] | None = None  # a text to the layer's keys
    beside: Mapping[str, Rows] = field(default_factory=dict[str, "Rows"])  # a control's extra predictions, by name
    memory: Layer | None = None  # the cache of the values, if they stay the same from step to step
    _changed: Mapping[tuple[Branch, int], Row] = field(default_factory=dict[tuple[Branch, int], Row])
    _seen: dict[tuple[Branch, int], Row] = field(default_factory=dict[tuple[Branch, int], Row])

    def __getitem__(self, branch: Branch) -> _Branch:
        return _Branch(self, branch)

    def row(self, branch: Branch, prompt: int) -> Row:
        """The row as the controls before left it."""
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
        """Rows in which one row has another q, k, v or pattern. New q or k without `pattern` reset the pattern to the
        softmax of queries and keys."""
        row = self.row(branch, prompt)
        keep = row.edited if not {"q", "k"} & set(tensors) else None
        renamed = {"values" if name == "v" else name: tensor for name, tensor in tensors.items()}
        changes: dict[str, Any] = {**renamed, "edited": pattern or keep}
        return replace(self, _changed={**self._changed, (branch, prompt): replace(row, **changes)})

    def keys_of(self, texts: Float[Tensor, "texts tokens dim"]) -> Float[Tensor, "texts heads tokens head"]:
        """The keys that a cross-attention layer projects from other encodings. Raises ValueError at other layers."""
        if self.project is None:
            raise ValueError(
                "Only a cross-attention layer projects keys from a text, and this layer is none. Choose cross sites."
            )
        return self.project(texts)

    def changed(self, branch: Branch, prompt: int) -> bool:
        """Whether a control has changed a row."""
        return (branch, prompt) in self._changed

    @property
    def originals(self) -> Mapping[tuple[Branch, int], Row]:
        """The rows that were read, as the network made them."""
        return self._seen

    @property
    def touched(self) -> bool:
        """Whether any control changed any row."""
        return bool(self._changed)

    def evaluate(self) -> Stack:
        """The outputs [batch, heads, queries, dim]."""
        return evaluate([self])

    def parts(self, calls: Calls, attend: Attend | None = None) -> Iterator[Part]:
        """The terms of each group of batch rows; softmax terms are queued in `calls`, to be evaluated together."""
        for first, count, row in self.groups():
            if row is None:
                where = slice(first, first + count)
                yield [(None, *_enter(calls, self.q[where], self.k[where], self.v[where]))]
                continue
            terms: Part = []
            for term in row.pattern.terms:
                kernel, v = term.kernel, self._values(term, row.v)
                if isinstance(kernel, Softmax) and kernel.bias is None:  # a bias keeps a term out of the common call
                    terms.append((term, *_enter(calls, kernel.q, kernel.k, v)))
                else:
                    more = (attend,) if isinstance(kernel, Softmax) and attend else ()
                    terms.append((term, kernel.apply(v, *more), 0))
            yield terms

    def _values(self, term: Term, v: Tensor) -> Tensor:
        """tokens · v; cached if `v` is a part of values that stay the same from step to step."""
        if self.memory is None or term.tokens is None or v.untyped_storage().data_ptr() != self._storage:
            return term.values(v)
        return self.memory.product(term.tokens, v, lambda: term.values(v))

    @cached_property
    def _storage(self) -> int:
        return self.v.untyped_storage().data_ptr()

    def groups(self) -> Iterator[tuple[int, int, Row | None]]:
        """(first batch row, number of batch rows, row): changed rows one by one, unchanged neighbours together, with
        None as row."""
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
    """Queries, keys and values of equal shape, for one call."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Tensor, Tensor, Tensor]] = []
        self.outputs: tuple[Tensor, ...] = ()

    def run(self, attend: Attend) -> None:
        if len(self.pieces) < MERGED:
            self.outputs = tuple(attend(*piece) for piece in self.pieces)
            return
        q, k, v = (torch.cat(tensors) for tensors in zip(*self.pieces, strict=True))
        sizes = [len(piece[0]) for piece in self.pieces]
        self.outputs = torch.split(attend(q, k, v), sizes)


Calls = dict[tuple[int, int], _Call]
Part = list[tuple[Term | None, _Call | Tensor, int]]


def evaluate(batches: Sequence[Rows], attend: Attend | None = None) -> Stack:
    """The concatenated outputs [batch, heads, queries, dim] of several batches. Unchanged rows are not copied, and many
    softmax terms of equal shape are evaluated in one call of `attend`, torch's own if None."""
    calls: Calls = {}
    parts = [part for rows in batches for part in rows.parts(calls, attend)]
    for call in calls.values():
        call.run(attend or F.scaled_dot_product_attention)
    # In memory, fused kernels return [batch, queries, heads, dim], which the layer then reads without a copy.
    return torch.cat([_total(part).transpose(1, 2) for part in parts]).transpose(1, 2)


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

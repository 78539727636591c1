"""Routes: which rows of a batch an edited site reads, found once and followed in the steps that do the same.

Most edits choose: a target takes the source's queries and keys, or values times a matrix of tokens. What they choose
does not depend on what the network computes, so it is read off the first step of its kind (`Route.of`), and further
steps gather rows, which takes one operation and no call of a control.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from promptweave.core.pattern import Softmax, Term, Tokens, weighted
from promptweave.core.rows import Row, Rows

IDLE: Final = "idle"  # nothing is read or changed at a site
CALL: Final = "call"  # the controls are called


class Piece(NamedTuple):
    """Rows `start` to `stop` of a batch or, of a recorded `prompt`, of its images."""

    start: int
    stop: int
    prompt: int | None = None


Pieces = tuple[Piece, ...]
Choice = tuple[Piece, Piece, Piece, Tokens]  # where queries, keys and values come from, and what the values are times


@dataclass(frozen=True, eq=False)
class Gather:
    """Rows of a batch of `size` rows and of recorded prompts, piece by piece."""

    pieces: Pieces
    size: int

    @cached_property
    def whole(self) -> bool:
        """Whether these are the rows of the batch as they are."""
        return self.pieces == (Piece(0, self.size),)

    @cached_property
    def prompts(self) -> tuple[int, ...]:
        """The recorded prompts, in the order of their pieces."""
        return tuple(piece.prompt for piece in self.pieces if piece.prompt is not None)

    @cached_property
    def needed(self) -> slice | None:
        """The rows of the batch between the first and the last one that is read; None if none is."""
        own = [piece for piece in self.pieces if piece.prompt is None]
        return slice(min(p.start for p in own), max(p.stop for p in own)) if own else None

    @cached_property
    def narrowed(self) -> Gather:
        """The same of the needed rows alone."""
        begin = 0 if self.needed is None else self.needed.start
        size = 0 if self.needed is None else self.needed.stop - begin
        moved = [p if p.prompt is not None else Piece(p.start - begin, p.stop - begin) for p in self.pieces]
        return Gather(tuple(moved), size)

    def __call__(self, x: Tensor | None, recorded: Sequence[Tensor] = ()) -> Tensor:
        """The rows, of `x` and of the recorded prompts (`prompts`)."""
        if self.whole and x is not None:
            return x
        more = iter(recorded)
        parts = [next(more) if x is None or prompt is not None else x[a:b] for a, b, prompt in self.pieces]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


@dataclass(frozen=True, eq=False)
class Route:
    """softmax(q k^T) · tokens v with gathered rows. The first outputs, as many as `q.size`, are those of the batch;
    further ones are added to them (`sums`: where to, and which)."""

    q: Gather
    k: Gather
    v: Gather
    tokens: tuple[Tokens, ...] = ()  # of each piece of v; none if all are the identity
    sums: tuple[tuple[slice, slice], ...] = ()

    @classmethod
    def of(cls, rows: Rows) -> Route | None:
        """The route that the controls chose for these rows; None if they made anything new."""
        known = _Known(rows)
        first: list[Choice] = []
        more: list[Choice] = []
        sums: list[tuple[slice, slice]] = []
        size, images = rows.layout.size, rows.layout.images
        for begin, count, row in rows.groups():
            if row is None:
                own = Piece(begin, begin + count)
                first.append((own, own, own, None))
                continue
            choices = [known.choice(term, row) for term in row.pattern.terms]
            for number, choice in enumerate(choices):
                if choice is None:
                    return None
                if number:
                    at = size + len(more) * images
                    sums.append((slice(begin, begin + images), slice(at, at + images)))
                (more if number else first).append(choice)
        q, k, v, tokens = zip(*first, *more, strict=True)
        if all(each is None for each in tokens):
            return cls(Gather(_merged(q), size), Gather(_merged(k), size), Gather(_merged(v), size), (), _joined(sums))
        return cls(Gather(_merged(q), size), Gather(_merged(k), size), Gather(v, size), tokens, _joined(sums))

    def values(self, v: Tensor) -> Tensor:
        """The values of all pieces, of those of the batch."""
        if not self.tokens:
            return self.v(v)
        pairs = zip(self.v.pieces, self.tokens, strict=True)
        return torch.cat([weighted(tokens, v[p.start : p.stop]) for p, tokens in pairs])

    def summed(self, outputs: Tensor) -> Tensor:
        """The outputs of the batch, from those of all pieces, which are changed in place."""
        for to, more in self.sums:
            outputs[to].add_(outputs[more])
        return outputs[: self.q.size] if self.sums else outputs


@dataclass(frozen=True, eq=False)
class Watched:
    """A site that hooks read: they are called with its rows, and its outputs are those of the route, or of no edit."""

    route: Route | None


Plan = Route | Watched | Literal["idle", "call"]


def beside(routes: Sequence[tuple[Route | None, int]]) -> Route:
    """The route of several parts of a batch, each with its own route, or none, and its number of rows."""
    sides: dict[str, tuple[list[Piece], list[Piece]]] = {name: ([], []) for name in "qkv"}
    tokens: tuple[list[Tokens], list[Tokens]] = ([], [])
    sums: list[tuple[slice, slice]] = []
    begin, more, total = 0, 0, sum(size for _, size in routes)
    for route, size in routes:
        own = route or _untouched(size)
        for name, gather in zip("qkv", (own.q, own.k, own.v), strict=True):
            for piece, token, late in _cut(gather.pieces, own.tokens if name == "v" else (), size):
                moved = piece if piece.prompt is not None else Piece(piece.start + begin, piece.stop + begin)
                sides[name][late].append(moved)
                if name == "v":
                    tokens[late].append(token)
        for to, late in own.sums:
            sums.append((_moved(to, begin), _moved(late, total + more - size)))
        more += sum(late.stop - late.start for _, late in own.sums)
        begin += size
    q, k, v = (Gather(_merged([*first, *last]), total) for first, last in (sides[name] for name in "qkv"))
    every = (*tokens[0], *tokens[1])
    if all(token is None for token in every):
        return Route(q, k, v, (), _joined(sums))
    return Route(q, k, Gather((*sides["v"][0], *sides["v"][1]), total), every, _joined(sums))


def _untouched(size: int) -> Route:
    own = Gather((Piece(0, size),), size)
    return Route(own, own, own)


def _moved(rows: slice, by: int) -> slice:
    return slice(rows.start + by, rows.stop + by)


def _cut(pieces: Pieces, tokens: tuple[Tokens, ...], size: int) -> Iterator[tuple[Piece, Tokens, bool]]:
    """The pieces with their tokens, and whether they are behind the first `size` outputs; none is on both sides."""
    at = 0
    for piece, token in zip(pieces, tokens or (None,) * len(pieces), strict=True):
        middle = piece.start + size - at
        if piece.start < middle < piece.stop:
            yield piece._replace(stop=middle), token, False
            yield piece._replace(start=middle), token, True
        else:
            yield piece, token, at >= size
        at += piece.stop - piece.start


class _Known:
    """Where queries, keys and values come from, told by the very tensors of the rows that the network made."""

    def __init__(self, rows: Rows) -> None:
        self.pieces: dict[tuple[str, int], Piece] = {}
        for (branch, prompt), row in rows.originals.items():
            piece = Piece(0, rows.layout.images, prompt)
            if prompt >= rows.layout.first:
                where = rows.layout.slice(branch, prompt)
                piece = Piece(where.start, where.stop)
            self.pieces |= {("q", id(row.q)): piece, ("k", id(row.k)): piece, ("v", id(row.values)): piece}

    def choice(self, term: Term, row: Row) -> Choice | None:
        kernel, get = term.kernel, self.pieces.get
        if not isinstance(kernel, Softmax) or kernel.bias is not None or term.gate is not None:
            return None
        q, k, v = get(("q", id(kernel.q))), get(("k", id(kernel.k))), get(("v", id(row.values)))
        if q is None or k is None or v is None or v.prompt is not None:
            return None
        return q, k, v, term.tokens


def _merged(pieces: Sequence[Piece]) -> Pieces:
    """Neighbours in the batch as one piece."""
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last is not None and last.prompt is None and piece.prompt is None and last.stop == piece.start:
            merged[-1] = Piece(last.start, piece.stop)
        else:
            merged.append(piece)
    return tuple(merged)


def _joined(pairs: Sequence[tuple[slice, slice]]) -> tuple[tuple[slice, slice], ...]:
    """Neighbours that are added to neighbours as one sum; the second and the third term of a row stay two."""
    joined: list[tuple[slice, slice]] = []
    for to, more in pairs:
        if joined and joined[-1][0].stop == to.start and joined[-1][1].stop == more.start:
            joined[-1] = slice(joined[-1][0].start, to.stop), slice(joined[-1][1].start, more.stop)
        else:
            joined.append((to, more))
    return tuple(joined)

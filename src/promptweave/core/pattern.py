"""Patterns: lazy attention matrices with an algebra.

Nearly every published edit is linear in the attention matrix A, and a layer's output is A v. A pattern is a sum of
terms diag(gate) K T, with K a kernel (mostly the softmax of queries and keys) and T a map from tokens to tokens. As

    A v = sum of gate * sdpa(q, k, T v),

no [queries, keys] matrix is built unless someone reads `dense`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Attention = Float[Tensor, "*batch heads queries keys"]
Values = Float[Tensor, "*batch heads keys dim"]
Attend = Callable[..., Tensor]  # softmax(q k^T / sqrt(dim) + attn_mask) v, as torch's scaled_dot_product_attention
PASSES, SMALL = 4, 256 * 1024  # of fused attention, and numbers of a matrix that is built instead of more passes


@dataclass(frozen=True, eq=False)
class Softmax:
    """softmax(q k^T / sqrt(dim) + bias), evaluated lazily.

    `bias` broadcasts to [*batch, heads, queries, keys]: numbers to add, or a mask, True where a query may attend.
    """

    q: Float[Tensor, "*batch heads queries dim"]
    k: Float[Tensor, "*batch heads keys dim"]
    bias: Float[Tensor, "*bias"] | Bool[Tensor, "*bias"] | None = None

    @property
    def queries(self) -> int:
        return self.q.shape[-2]

    @property
    def dtype(self) -> torch.dtype:
        return self.q.dtype

    @property
    def device(self) -> torch.device:
        return self.q.device

    @cached_property
    def dense(self) -> Attention:
        """The matrix, computed once; the softmax in single precision at least."""
        precise = torch.promote_types(self.q.dtype, torch.float32)
        scores = (self.q.to(precise) @ self.k.to(precise).transpose(-1, -2)) * self.q.shape[-1] ** -0.5
        if self.bias is not None and self.bias.dtype == torch.bool:
            scores = scores.masked_fill(~self.bias, -torch.inf)
        elif self.bias is not None:
            scores = scores + self.bias.to(precise)
        return scores.softmax(-1).to(self.q.dtype)

    def apply(self, v: Values, attend: Attend | None = None) -> Float[Tensor, "*batch heads queries dim"]:
        bias = self.bias
        if bias is not None:
            bias = bias if bias.dtype == torch.bool else bias.to(self.q.dtype)
            bias = bias[None] if bias.ndim == 1 else bias  # over keys: the same for all queries
        return (attend or F.scaled_dot_product_attention)(self.q, self.k, v, attn_mask=bias)


@dataclass(frozen=True, eq=False)
class Identity:
    """Every query attends to itself alone; queries and keys are the same tokens (Perturbed-Attention Guidance)."""

    queries: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def like(cls, q: Float[Tensor, "*batch heads queries dim"]) -> Identity:
        """The identity of as many tokens as there are queries."""
        return cls(q.shape[-2], q.dtype, q.device)

    @cached_property
    def dense(self) -> Float[Tensor, "1 queries queries"]:
        return torch.eye(self.queries, dtype=self.dtype, device=self.device)[None]

    def apply(self, v: Values) -> Float[Tensor, "*batch heads queries dim"]:
        return v


@dataclass(frozen=True, eq=False)
class Outer:
    """A matrix of rank one, the same for all heads: the outer product of `pixels` [queries] and `words` [keys]."""

    pixels: Float[Tensor, "queries"]
    words: Float[Tensor, "keys"]

    @property
    def queries(self) -> int:
        return len(self.pixels)

    @property
    def dtype(self) -> torch.dtype:
        return self.pixels.dtype

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    @cached_property
    def dense(self) -> Float[Tensor, "1 queries keys"]:
        return torch.outer(self.pixels, self.words)[None]

    def apply(self, v: Values) -> Float[Tensor, "*batch heads queries dim"]:
        return self.pixels[:, None] * (self.words @ v)[..., None, :]


@dataclass(frozen=True, eq=False)
class Dense:
    """An explicit matrix [*batch, heads, queries, keys]."""

    dense: Attention

    @property
    def queries(self) -> int:
        return self.dense.shape[-2]

    @property
    def dtype(self) -> torch.dtype:
        return self.dense.dtype

    @property
    def device(self) -> torch.device:
        return self.dense.device

    def apply(self, v: Values) -> Float[Tensor, "*batch heads queries dim"]:
        return self.dense @ v


Kernel = Softmax | Identity | Outer | Dense
Tokens = Float[Tensor, "keys keys2"] | Float[Tensor, "keys"] | None  # a matrix, a diagonal, or the identity


def weighted(tokens: Tokens, v: Values) -> Values:
    """tokens · v."""
    if tokens is None:
        return v
    tokens = tokens.to(v.dtype)
    return tokens[:, None] * v if tokens.ndim == 1 else tokens @ v


@dataclass(frozen=True, eq=False)
class Term:
    """diag(gate) · kernel · tokens."""

    kernel: Kernel
    tokens: Tokens = None
    gate: Float[Tensor, "queries"] | None = None

    def values(self, v: Values) -> Values:
        """tokens · v."""
        return weighted(self.tokens, v)

    def gated(self, output: Float[Tensor, "*batch heads queries dim"]) -> Float[Tensor, "*batch heads queries dim"]:
        """diag(gate) · output."""
        return output if self.gate is None else self.gate.to(output.dtype)[:, None] * output

    @property
    def dense(self) -> Attention:
        matrix = self.kernel.dense
        if self.tokens is not None:
            tokens = self.tokens.to(matrix.dtype)
            matrix = matrix * tokens if tokens.ndim == 1 else matrix @ tokens
        return self.gated(matrix)


@dataclass(frozen=True, eq=False)
class Pattern:
    """A sum of terms. Immutable: every operator returns a new pattern."""

    terms: tuple[Term, ...]

    @classmethod
    def of(
        cls,
        q: Float[Tensor, "*batch heads queries dim"],
        k: Float[Tensor, "*batch heads keys dim"],
        bias: Float[Tensor, "*bias"] | Bool[Tensor, "*bias"] | None = None,
    ) -> Pattern:
        """The attention of `q` to `k`; see `Softmax` for `bias`."""
        return cls((Term(Softmax(q, k, bias)),))

    @classmethod
    def identity(cls, q: Float[Tensor, "*batch heads queries dim"]) -> Pattern:
        """Every query attends to itself alone; queries and keys are the same tokens."""
        return cls((Term(Identity.like(q)),))

    def __matmul__(self, tokens: Float[Tensor, "keys keys2"]) -> Pattern:
        """A · M."""

        def moved(term: Term) -> Term:
            old = term.tokens
            if old is None:
                return replace(term, tokens=tokens)
            return replace(term, tokens=old[:, None] * tokens if old.ndim == 1 else old @ tokens)

        return Pattern(tuple(map(moved, self.terms)))

    def __mul__(self, weights: Float[Tensor, "keys"] | float) -> Pattern:
        """A · diag(w), or w A for a number."""

        def scaled(term: Term) -> Term:
            if isinstance(weights, Tensor):
                return replace(term, tokens=weights if term.tokens is None else term.tokens * weights)
            if term.gate is not None:
                return replace(term, gate=term.gate * weights)
            if term.tokens is not None:
                return replace(term, tokens=term.tokens * weights)
            kernel = term.kernel
            gate = torch.full((kernel.queries,), float(weights), dtype=kernel.dtype, device=kernel.device)
            return replace(term, gate=gate)

        return Pattern(tuple(map(scaled, self.terms)))

    def __add__(self, other: Pattern) -> Pattern:
        """A + B."""
        return Pattern(self.terms + other.terms)

    def gated(self, pixels: Float[Tensor, "queries"]) -> Pattern:
        """diag(u) · A."""
        return Pattern(tuple(replace(t, gate=pixels if t.gate is None else t.gate * pixels) for t in self.terms))

    def apply(self, v: Values) -> Float[Tensor, "*batch heads queries dim"]:
        """A · v, term by term; `core.rows` does the same for many rows in one call."""
        outputs = [term.gated(term.kernel.apply(term.values(v))) for term in self.terms]
        return torch.stack(outputs).sum(0) if len(outputs) > 1 else outputs[0]

    def weigh(
        self, weights: Float[Tensor, "keys channels"], heads: int, dim: int
    ) -> Float[Tensor, "*batch heads queries channels"]:
        """A · weights without building A: the weights are passed as values, `dim` columns at a time.

        `heads` and `dim` are those of queries and keys, as fused kernels require. A small matrix is built where many
        such passes would take its place.
        """
        queries = self.terms[0].kernel.queries
        if weights.shape[-1] > PASSES * dim and queries * weights.shape[0] <= SMALL:
            return self.dense @ weights.to(self.dense.dtype)
        parts: list[Tensor] = []
        lead = next((t.kernel.q.shape[:-3] for t in self.terms if isinstance(t.kernel, Softmax)), torch.Size())
        for first in range(0, weights.shape[-1], dim):
            columns = weights[:, first : first + dim]
            values = F.pad(columns, (0, dim - columns.shape[-1])).expand(*lead, heads, *columns.shape[:1], dim)
            parts.append(self.apply(values)[..., : columns.shape[-1]])
        return torch.cat(parts, -1)

    @cached_property
    def dense(self) -> Attention:
        """The matrix [*batch, heads, queries, keys]; computed when first read, then shared; it keeps its gradient."""
        total = self.terms[0].dense
        for term in self.terms[1:]:
            total = total + term.dense
        return total

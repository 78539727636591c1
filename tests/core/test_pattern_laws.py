"""Any chain of operators on patterns equals the same chain on matrices; applying pays for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import attention
from torch import Tensor

from promptweave.core.pattern import Pattern

HEADS, QUERIES, KEYS, DIM = 3, 11, 7, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


Q, OTHER, K = draw(HEADS, QUERIES, DIM), draw(HEADS, QUERIES, DIM, seed=2), draw(HEADS, KEYS, DIM)
V, M, W, U = draw(HEADS, KEYS, DIM, seed=1), draw(KEYS, KEYS) / KEYS, draw(KEYS), draw(QUERIES)
OPERATORS: dict[str, Callable[[Any], Any]] = {
    "map": lambda a: a @ M,
    "vector": lambda a: a * W,
    "number": lambda a: a * 0.3,
    "gate": lambda a: a.gated(U) if isinstance(a, Pattern) else U[:, None] * a,
    "sum": lambda a: a + (Pattern.of(OTHER, K) if isinstance(a, Pattern) else attention(OTHER, K)),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(OPERATORS)), max_size=6))
def test_any_chain_equals_dense(names: list[str]) -> None:
    lazy, dense = Pattern.of(Q, K), attention(Q, K)
    for name in names:
        lazy, dense = OPERATORS[name](lazy), OPERATORS[name](dense)
    output = lazy.apply(V)
    assert not any("dense" in vars(term.kernel) for term in lazy.terms)
    # a chain of six adds some ten roundings to numbers near 1
    torch.testing.assert_close(output, dense @ V, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lazy.dense, dense, rtol=1e-12, atol=1e-12)


def test_weights_stay_a_diagonal() -> None:
    assert (Pattern.of(Q, K) * W * W * 2.0).terms[0].tokens.shape == (KEYS,)


def test_operators_leave_their_operands_alone() -> None:
    pattern = Pattern.of(Q, K)
    for operator in OPERATORS.values():
        operator(pattern)
    (term,) = pattern.terms
    assert term.tokens is None and term.gate is None


def test_the_gradient_is_the_same_lazy_and_dense() -> None:
    q = Q.clone().requires_grad_()
    pattern = Pattern.of(q, K) @ M * W
    (lazy,) = torch.autograd.grad(pattern.apply(V).square().sum(), q)
    (dense,) = torch.autograd.grad((pattern.dense @ V).square().sum(), q)
    torch.testing.assert_close(lazy, dense, rtol=1e-10, atol=1e-13)
    assert lazy.abs().max() > 1e-3

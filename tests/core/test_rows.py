"""A site evaluated at once equals its rows one by one."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from references import attention
from torch import Tensor

from promptweave.core.pattern import Dense, Outer, Pattern, Term
from promptweave.core.rows import Layout, Rows

BRANCHES, PROMPTS, IMAGES, HEADS, QUERIES, KEYS, DIM = 2, 5, 2, 3, 11, 7, 4
LAYOUT = Layout(("uncond", "cond"), PROMPTS, IMAGES)


def made(dtype: torch.dtype = torch.float64) -> Rows:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(LAYOUT.size, HEADS, n, DIM, generator=g, dtype=dtype) for n in (QUERIES, KEYS, KEYS))
    return Rows(q, k, v, LAYOUT)


def rows_by_loop(rows: Rows, patterns: dict[int, Tensor], values: dict[int, Tensor]) -> Tensor:
    """Each batch row alone: its own attention and values unless others are given for it."""
    outputs = [patterns.get(i, attention(rows.q[i], rows.k[i])) @ values.get(i, rows.v[i]) for i in range(LAYOUT.size)]
    return torch.stack(outputs)


def span(branch: int, prompt: int) -> range:
    begin = (branch * PROMPTS + prompt) * IMAGES
    return range(begin, begin + IMAGES)


def calls(rows: Rows) -> tuple[Tensor, int]:
    with patch.object(F, "scaled_dot_product_attention", wraps=F.scaled_dot_product_attention) as counted:
        return rows.evaluate(), counted.call_count


def test_untouched_rows_are_one_plain_call_bit_for_bit() -> None:
    rows = made(torch.float32)
    output, count = calls(rows)
    assert count == 1 and torch.equal(output, F.scaled_dot_product_attention(rows.q, rows.k, rows.v))


def test_reading_a_row_gives_views_and_touches_nothing() -> None:
    rows = made()
    row = rows["cond"][1]
    assert row.q.data_ptr() == rows.q[span(1, 1)[0]].data_ptr() and not rows.touched


def test_rows_are_where_the_layout_says() -> None:
    rows = made()
    for branch, name in enumerate(("uncond", "cond")):
        for prompt in range(PROMPTS):
            assert torch.equal(rows[name][prompt].v, rows.v[list(span(branch, prompt))])


def test_mixed_rows_equal_a_loop() -> None:
    """All kinds of edits in one batch, some prompts and the whole other branch untouched."""
    rows, g = made(), torch.Generator().manual_seed(1)
    m, w, u = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((KEYS, KEYS), (KEYS,), (QUERIES,)))
    source, matrix = rows["cond"][0].pattern, torch.rand(IMAGES, HEADS, QUERIES, KEYS, generator=g, dtype=torch.float64)
    edited = rows.put("cond", 1, pattern=source @ m * w + rows["cond"][1].pattern * (1 - w))
    edited = edited.put("cond", 2, pattern=rows["cond"][2].pattern.gated(u) + Pattern((Term(Outer(u, w)),)))
    edited = edited.put("cond", 4, pattern=Pattern((Term(Dense(matrix)),)), v=rows["cond"][0].v)
    edited = edited.put("uncond", 3, pattern=rows["uncond"][3].pattern * w)
    patterns: dict[int, Tensor] = {}
    values: dict[int, Tensor] = {}
    for image in range(IMAGES):
        own = {p: attention(rows.q[span(1, p)[image]], rows.k[span(1, p)[image]]) for p in range(PROMPTS)}
        patterns[span(1, 1)[image]] = own[0] @ m * w + own[1] * (1 - w)
        patterns[span(1, 2)[image]] = u[:, None] * own[2] + torch.outer(u, w)
        patterns[span(1, 4)[image]], values[span(1, 4)[image]] = matrix[image], rows.v[span(1, 0)[image]]
        patterns[span(0, 3)[image]] = attention(rows.q[span(0, 3)[image]], rows.k[span(0, 3)[image]]) * w
    output, count = calls(edited)
    assert count == 1
    torch.testing.assert_close(output, rows_by_loop(rows, patterns, values), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("paid", [False, True])
def test_a_shared_kernel_is_one_call_or_none(paid: bool) -> None:
    """Self-attention injection: all targets with the source's pattern and their own values."""
    rows = made()
    source = rows["cond"][0].pattern
    if paid:
        source.dense  # noqa: B018
    edited = rows
    for prompt in range(1, PROMPTS):
        edited = edited.put("cond", prompt, pattern=source)
    patterns = {
        span(1, p)[i]: attention(rows.q[span(1, 0)[i]], rows.k[span(1, 0)[i]]) for p in range(1, 5) for i in range(2)
    }
    output, count = calls(edited)
    assert count == 1
    torch.testing.assert_close(output, rows_by_loop(rows, patterns, {}), rtol=1e-12, atol=1e-13)


def test_new_keys_make_a_new_pattern_and_new_values_do_not() -> None:
    rows = made()
    other = rows["cond"][0]
    followed = rows.put("cond", 1, k=other.k, v=other.v)["cond"][1]
    torch.testing.assert_close(followed.pattern.dense, attention(rows["cond"][1].q, other.k), rtol=1e-12, atol=1e-14)
    half = rows["cond"][1].pattern * 0.5
    assert rows.put("cond", 1, pattern=half).put("cond", 1, v=other.v)["cond"][1].pattern is half


def test_new_queries_drop_an_earlier_edit_as_put_says() -> None:
    rows = made()
    edited = rows.put("cond", 1, pattern=rows["cond"][1].pattern * 0.5)
    assert edited.put("cond", 1, q=rows["cond"][0].q)["cond"][1].edited is None


def test_a_longer_row_gets_a_call_of_its_own() -> None:
    """Keys of source and target side by side (MasaCtrl's kind of edit)."""
    rows = made()
    mine, source = rows["cond"][2], rows["cond"][0]
    k, v = torch.cat([mine.k, source.k], 2), torch.cat([mine.v, source.v], 2)
    output, count = calls(rows.put("cond", 2, k=k, v=v))
    assert count == 3  # the rows before, the rows behind, and this one
    wanted = attention(mine.q, k) @ v
    torch.testing.assert_close(output[list(span(1, 2))], wanted, rtol=1e-12, atol=1e-13)


def test_put_is_immutable() -> None:
    rows = made()
    before = rows["cond"][1].pattern
    edited = rows.put("cond", 1, pattern=before * 0.0)
    assert not rows.touched and edited.touched
    assert rows["cond"][1].pattern is before and edited["cond"][0] is rows["cond"][0]


def test_a_row_that_is_not_there() -> None:
    with pytest.raises(IndexError, match="rows 0 to 4. Received 5"):
        made()["cond"][PROMPTS]
    with pytest.raises(ValueError, match="Received .uncond."):
        q = torch.zeros(3, 2, 4, 5)
        Rows(q, q, q, Layout(("cond",), 3))["uncond"][0]


def test_the_gradient_flows_through_an_edited_site() -> None:
    rows = made()
    q = rows.q.clone().requires_grad_()
    rows = Rows(q, rows.k, rows.v, LAYOUT)
    edited = rows.put("cond", 1, pattern=rows["cond"][0].pattern)
    (gradient,) = torch.autograd.grad(edited.evaluate()[list(span(1, 1))].square().sum(), q)
    assert gradient[list(span(1, 0))].abs().max() > 0 and gradient[list(span(1, 1))].abs().max() == 0

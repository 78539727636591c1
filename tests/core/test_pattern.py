"""Lazy patterns equal dense ones, alone and evaluated together."""

from __future__ import annotations

import pytest
import torch

from promptweave.core.pattern import Dense, Outer, Pattern, Softmax, Term
from promptweave.core.rows import Layout, Rows
from promptweave.core.site import Site

IMAGES, HEADS, QUERIES, KEYS, DIM = 2, 3, 11, 7, 5


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pattern(seed):
    return Pattern.of(draw(IMAGES, HEADS, QUERIES, DIM, seed=seed), draw(IMAGES, HEADS, KEYS, DIM, seed=seed + 100))


A, B = pattern(1), pattern(2)
MATRIX, WEIGHTS, GATE = draw(KEYS, KEYS, seed=3), draw(KEYS, seed=4), draw(QUERIES, seed=5)
CASES = {
    "plain": (A, A.dense),
    "map": (A @ MATRIX, A.dense @ MATRIX),
    "weights": (A * WEIGHTS, A.dense * WEIGHTS),
    "number": (A * 0.25, A.dense * 0.25),
    "map, weights": (A @ MATRIX * WEIGHTS, A.dense @ MATRIX * WEIGHTS),
    "weights, map": (A * WEIGHTS @ MATRIX, (A.dense * WEIGHTS) @ MATRIX),
    "gate": (A.gated(GATE), GATE[:, None] * A.dense),
    "gate, number": (A.gated(GATE) * 2.0, 2 * GATE[:, None] * A.dense),
    "weights, number": (A * WEIGHTS * 2.0, 2 * A.dense * WEIGHTS),
    "refine, reweight": (
        (A @ MATRIX * WEIGHTS + B * (1 - WEIGHTS)) * GATE[:KEYS],
        (A.dense @ MATRIX * WEIGHTS + B.dense * (1 - WEIGHTS)) * GATE[:KEYS],
    ),
    "region": (
        A * 0.1 + (A * WEIGHTS).gated(GATE) + Pattern((Term(Outer(GATE, WEIGHTS)),)),
        A.dense * 0.1 + GATE[:, None] * A.dense * WEIGHTS + torch.outer(GATE, WEIGHTS),
    ),
    "dense kernel": (Pattern((Term(Dense(A.dense.square())),)) @ MATRIX, A.dense.square() @ MATRIX),
}


@pytest.mark.parametrize("name", CASES)
def test_lazy_equals_dense(name):
    lazy, dense = CASES[name]
    v = draw(IMAGES, HEADS, KEYS, DIM, seed=9)
    torch.testing.assert_close(lazy.dense, dense.expand_as(lazy.dense), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(lazy.apply(v), dense @ v, rtol=1e-12, atol=1e-13)
    fresh = Pattern(
        tuple(
            Term(Softmax(t.kernel.q, t.kernel.k), t.tokens, t.gate) if isinstance(t.kernel, Softmax) else t
            for t in lazy.terms
        )
    )
    torch.testing.assert_close(fresh.apply(v), dense @ v, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_rows_evaluate_like_a_loop(name):
    layout = Layout(("uncond", "cond"), prompts=3, images=IMAGES)
    q, k, v = (draw(layout.size, HEADS, n, DIM, seed=20 + i) for i, n in enumerate((QUERIES, KEYS, KEYS)))
    plain = Rows(q, k, v, layout).evaluate()
    rows = Rows(q, k, v, layout)
    rows = rows.put("cond", 1, pattern=CASES[name][0])
    rows = rows.put("cond", 2, v=draw(IMAGES, HEADS, KEYS, DIM, seed=40))
    got = rows.evaluate()
    assert got.shape == plain.shape
    for branch, prompt in (("uncond", 0), ("uncond", 1), ("uncond", 2), ("cond", 0)):
        where = layout.slice(branch, prompt)
        torch.testing.assert_close(got[where], plain[where], rtol=1e-13, atol=0)
    torch.testing.assert_close(
        got[layout.slice("cond", 1)], CASES[name][1] @ v[layout.slice("cond", 1)], rtol=1e-12, atol=1e-13
    )
    row = layout.slice("cond", 2)
    want = Pattern.of(q[row], k[row]).dense @ draw(IMAGES, HEADS, KEYS, DIM, seed=40)
    torch.testing.assert_close(got[row], want, rtol=1e-12, atol=1e-13)


def test_untouched_rows_are_one_call_on_the_batch():
    layout = Layout(("cond",), prompts=2)
    q = draw(2, HEADS, QUERIES, DIM)
    rows = Rows(q, q, q, layout)
    assert not rows.touched
    assert torch.equal(rows.evaluate(), torch.nn.functional.scaled_dot_product_attention(q, q, q))


def test_new_keys_make_a_new_pattern_and_old_rows_stay():
    layout = Layout(("cond",), prompts=2)
    q, k = draw(2, HEADS, QUERIES, DIM, seed=1), draw(2, HEADS, KEYS, DIM, seed=2)
    rows = Rows(q, k, k, layout)
    changed = rows.put("cond", 1, k=rows["cond"][0].k)
    torch.testing.assert_close(changed["cond"][1].pattern.dense, Pattern.of(q[1:], k[:1]).dense)
    torch.testing.assert_close(rows["cond"][1].pattern.dense, Pattern.of(q[1:], k[1:]).dense)
    with pytest.raises(IndexError, match="rows 0 to 1"):
        rows["cond"][2]


def test_keys_of_another_length():
    """MasaCtrl's union: the target sees the source's keys and its own."""
    layout = Layout(("cond",), prompts=2)
    q, k, v = (draw(2, HEADS, n, DIM, seed=n) for n in (QUERIES, KEYS, KEYS + 1 - 1))
    rows = Rows(q, k, v, layout)
    both = {name: torch.cat([getattr(rows["cond"][0], name), getattr(rows["cond"][1], name)], 2) for name in "kv"}
    got = rows.put("cond", 1, **both).evaluate()[1:]
    torch.testing.assert_close(got, Pattern.of(q[1:], both["k"]).dense @ both["v"], rtol=1e-12, atol=0)


def test_dense_is_computed_once_and_keeps_its_gradient():
    q = draw(1, HEADS, QUERIES, DIM).requires_grad_()
    a = Pattern.of(q, draw(1, HEADS, KEYS, DIM, seed=1))
    first = (a @ MATRIX).dense
    assert (a @ MATRIX).terms[0].kernel.dense is a.terms[0].kernel.dense
    assert (a * WEIGHTS).terms[0].kernel is a.terms[0].kernel
    first.sum().backward()
    assert q.grad is not None and float(q.grad.abs().sum()) > 0


def test_joint_sites_edit_text_keys_for_image_queries_only():
    site = Site("stream_joint_0", "joint", "stream", 0, HEADS, (3, 2), text=slice(0, 4), image=slice(4, 10))
    q, k = draw(1, HEADS, 10, DIM, seed=1), draw(1, HEADS, 10, DIM, seed=2)
    old, tokens = Pattern.of(q, k), draw(4, 4, seed=3)
    wide = torch.eye(10, dtype=torch.float64)
    wide[:4, :4] = tokens
    want = old.dense.clone()
    want[:, :, 4:] = (old.dense @ wide)[:, :, 4:]
    torch.testing.assert_close(site.on_image(old @ site.widen(tokens), old).dense, want)
    torch.testing.assert_close(site.widen(tokens[0])[:4], tokens[0])
    assert float(site.widen(tokens[0])[4:].sum()) == 6


def test_half_precision_soft_max_is_computed_in_single():
    q = draw(1, HEADS, QUERIES, DIM).bfloat16() * 8
    dense = Pattern.of(q, q).dense
    assert dense.dtype == torch.bfloat16
    exact = (q.float() @ q.float().transpose(-1, -2) * DIM**-0.5).softmax(-1)
    torch.testing.assert_close(dense.float(), exact, atol=4e-3, rtol=1e-2)  # one rounding to bfloat16


def test_a_bias_is_added_before_the_soft_max_and_a_mask_hides_keys():
    q, k, v = draw(IMAGES, HEADS, QUERIES, DIM), draw(IMAGES, HEADS, KEYS, DIM, seed=1), draw(IMAGES, HEADS, KEYS, DIM)
    bias = draw(QUERIES, KEYS, seed=7)
    scores = q @ k.transpose(-1, -2) / DIM**0.5
    added = Pattern.of(q, k, bias)
    torch.testing.assert_close(added.apply(v), (scores + bias).softmax(-1) @ v, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(added.dense, (scores + bias).softmax(-1), rtol=1e-12, atol=1e-13)
    seen = torch.tensor([True, False, True, True, False, True, False])
    hidden = Pattern.of(q, k, seen)
    wanted = torch.zeros_like(scores)
    wanted[..., seen] = scores[..., seen].softmax(-1)
    torch.testing.assert_close(hidden.dense, wanted, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(hidden.apply(v), wanted @ v, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close((hidden * WEIGHTS).apply(v), (wanted * WEIGHTS) @ v, rtol=1e-12, atol=1e-13)


def test_the_identity_looks_at_itself():
    q, v = draw(IMAGES, HEADS, KEYS, DIM), draw(IMAGES, HEADS, KEYS, DIM, seed=2)
    itself = Pattern.identity(q)
    assert torch.equal(itself.apply(v), v)
    torch.testing.assert_close((itself @ MATRIX * 0.5).apply(v), 0.5 * MATRIX @ v, rtol=1e-12, atol=1e-13)
    mixed = itself * 0.25 + Pattern.of(q, q) * 0.75
    torch.testing.assert_close(mixed.apply(v), mixed.dense @ v, rtol=1e-12, atol=1e-13)


def test_rows_with_every_kernel_are_evaluated_together():
    layout = Layout(("cond",), 4, IMAGES)
    q, v = draw(layout.size, HEADS, KEYS, DIM), draw(layout.size, HEADS, KEYS, DIM, seed=3)
    rows = Rows(q, q, v, layout)
    bias = draw(KEYS, KEYS, seed=4)
    patterns = [Pattern.identity(rows["cond"][1].q), Pattern.of(rows["cond"][0].q, rows["cond"][2].k, bias) * WEIGHTS]
    edited = rows.put("cond", 1, pattern=patterns[0]).put("cond", 2, pattern=patterns[1] + patterns[0])
    wanted = [Pattern.of(q[:2], q[:2]), patterns[0], patterns[1] + patterns[0], Pattern.of(q[6:], q[6:])]
    for prompt, pattern in enumerate(wanted):
        where = layout.slice("cond", prompt)
        torch.testing.assert_close(edited.evaluate()[where], pattern.dense @ v[where], rtol=1e-12, atol=1e-13)


def test_looking_changes_no_bit_of_what_is_computed():
    layout = Layout(("cond",), 2, IMAGES)
    q, v = (draw(layout.size, HEADS, n, DIM, seed=n).float() for n in (QUERIES, KEYS))
    k = draw(layout.size, HEADS, KEYS, DIM, seed=8).float()

    def edited(look):
        rows = Rows(q, k, v, layout)
        pattern = rows["cond"][0].pattern * WEIGHTS.float()
        if look:
            assert pattern.dense.shape == (IMAGES, HEADS, QUERIES, KEYS) and rows["cond"][1].pattern.dense.sum() > 1
        return rows.put("cond", 1, pattern=pattern).evaluate()

    assert torch.equal(edited(True), edited(False))

"""Sites, predicates on them, and the joint attention of later models."""

from __future__ import annotations

import pytest
import torch

from promptweave.core.pattern import Pattern
from promptweave.core.site import Site, Sites

CROSS = Site("down_cross_0_res_5x3", "cross", "down", 1, 2, (5, 3))
JOINT = Site("stream_0", "joint", "stream", 0, 2, (5, 3), text=slice(0, 7), image=slice(7, 22))


def test_a_unet_needs_no_widening() -> None:
    m, w = torch.rand(7, 7), torch.rand(7)
    assert CROSS.widen(m) is m and CROSS.widen(w) is w
    q, k = torch.rand(1, 2, 15, 4), torch.rand(1, 2, 7, 4)
    new, old = Pattern.of(q, k), Pattern.of(q * 2, k)
    assert CROSS.on_image(new, old) is new
    assert CROSS.queries == 15


def test_a_joint_layer_edits_text_keys_for_image_queries_only() -> None:
    m = torch.rand(7, 7, dtype=torch.float64)
    q, k = torch.rand(2, 1, 2, 22, 4, dtype=torch.float64)
    old = Pattern.of(q, k)
    dense = JOINT.on_image(old @ JOINT.widen(m), old).dense
    wanted = old.dense.clone()
    wanted[..., 7:, :7] = wanted[..., 7:, :7] @ m
    torch.testing.assert_close(dense, wanted, rtol=1e-12, atol=1e-14)
    weights = torch.rand(7, dtype=torch.float64)
    assert torch.equal(JOINT.widen(weights), torch.cat([weights, torch.ones(15, dtype=torch.float64)]))


@pytest.mark.parametrize(
    ("sites", "inside"),
    [
        (Sites(), True), (Sites("cross"), True), (Sites("self"), False), (Sites(places=("down", "mid")), True),
        (Sites(places=("up",)), False), (Sites(grid=(5, 3)), True), (Sites(grid=(3, 5)), False),
        (Sites(max_queries=15), True), (Sites(max_queries=14), False), (Sites("cross", ("down",), (5, 3), 15), True),
    ],
)  # fmt: skip
def test_predicates(sites: Sites, inside: bool) -> None:
    assert (CROSS in sites) is inside

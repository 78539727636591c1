"""The one accumulator."""

from __future__ import annotations

import pytest
import torch
from references import attention

from promptweave.core.accumulator import Maps
from promptweave.core.clock import Step
from promptweave.core.rows import Layout, Rows
from promptweave.core.site import Site, Sites

IMAGES, HEADS, GRID, KEYS, DIM = 2, 3, (5, 3), 7, 4
SITES = tuple(Site(f"down_cross_{i}", "cross", "down", i, HEADS, GRID) for i in range(2))
LAYOUT = Layout(("uncond", "cond"), 3, IMAGES)


def rows(seed: int, dtype: torch.dtype = torch.float64) -> Rows:
    g = torch.Generator().manual_seed(seed)
    return Rows(*(torch.randn(LAYOUT.size, HEADS, n, DIM, generator=g).to(dtype) for n in (15, KEYS, KEYS)), LAYOUT)


def filled(maps: Maps, dtype: torch.dtype = torch.float64) -> Maps:
    for index in range(4):
        for site in SITES:
            maps.add(Step(index, 4, 900 - index, 899 - index), site, rows(10 * index + site.index, dtype))
    return maps


def test_the_mean_is_the_mean_of_dense_maps_and_sums_to_one() -> None:
    maps = filled(Maps(Sites("cross"), (0, 2)))
    wanted = torch.stack(
        [attention(r["cond"][2].q, r["cond"][2].k) for r in (rows(10 * i + s) for i in range(4) for s in (0, 1))]
    )
    mean = maps.mean(2)
    assert mean.shape == (IMAGES, *GRID, KEYS)
    torch.testing.assert_close(mean, wanted.mean((0, 2)).unflatten(1, GRID), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(mean.sum(-1), torch.ones(IMAGES, *GRID, dtype=torch.float64))


def test_memory_does_not_grow_with_steps_or_sites() -> None:
    assert len(filled(Maps(Sites("cross"), (0, 2))).sums) == 2


def test_steps_and_sites_apart_add_up() -> None:
    whole, apart = filled(Maps(Sites(), (1,))), filled(Maps(Sites(), (1,), by_site=True, by_step=True))
    assert len(apart.sums) == 8
    torch.testing.assert_close(apart.mean(1), whole.mean(1), rtol=1e-12, atol=1e-14)


def test_weighted_sums_of_tokens() -> None:
    weights = torch.rand(KEYS, 2)
    maps = filled(Maps(Sites(), (1,), weights={1: weights}))
    torch.testing.assert_close(
        maps.mean(1), filled(Maps(Sites(), (1,))).mean(1) @ weights.double(), rtol=1e-12, atol=1e-14
    )


def test_half_precision_is_summed_in_single() -> None:
    mean = filled(Maps(Sites(), (1,)), torch.bfloat16).mean(1)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean.sum(-1), torch.ones(IMAGES, *GRID), rtol=0, atol=1e-2)  # maps rounded to 8 bits


def test_effective_and_original_maps() -> None:
    batch = rows(0)
    edited = batch.put("cond", 1, pattern=batch["cond"][0].pattern)
    step = Step(0, 1, 1, 0)
    seen, own = Maps(Sites(), (1,)), Maps(Sites(), (1,), own=True)
    for maps in (seen, own):
        maps.add(step, SITES[0], edited)
    torch.testing.assert_close(seen.mean(1), batch["cond"][0].pattern.dense.mean(1).unflatten(1, GRID))
    torch.testing.assert_close(own.mean(1), batch["cond"][1].pattern.dense.mean(1).unflatten(1, GRID))


def test_nothing_recorded_says_so() -> None:
    with pytest.raises(ValueError, match="No maps were recorded for prompt 1"):
        filled(Maps(Sites("self"), (1,))).mean(1)

"""Schedules against diffusers: tables of noise levels and training times."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from references import scaled_linear

from promptweave.core.schedule import Schedule


def test_the_table_of_stable_diffusion(tiny):
    table = tiny.schedule().alpha_bar
    checks = {0: 0.99915, 1: 0.998296, 500: 0.276333, 980: 0.0058438, 981: 0.0057755, 999: 0.0046601}
    for t, value in checks.items():
        assert float(table[t]) == pytest.approx(value, rel=1e-4)  # given to five digits
    torch.testing.assert_close(table, scaled_linear(), rtol=1e-5, atol=0)  # diffusers keeps it in single precision
    assert tiny.schedule().final == float(table[0])


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("count", [1, 3, 7, 20, 50, 1000])
@pytest.mark.parametrize("offset", [0, 1])
def test_training_times_are_those_of_diffusers(spacing, count, offset):
    theirs = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    theirs.set_timesteps(count)
    ours = Schedule(scaled_linear(), spacing=spacing, offset=offset).steps(count)
    # With an offset a full run would begin at 1000, beyond the table: we begin at its end.
    assert [s.t for s in ours] == [min(t, 999) for t in theirs.timesteps.tolist()]
    assert [s.t_next for s in ours] == [s.t - 1000 // count for s in ours]
    assert [s.index for s in ours] == list(range(count))


@pytest.mark.parametrize("count", [0, -1, 1001, True])
def test_a_number_of_steps_that_cannot_be(count):
    with pytest.raises(ValueError, match="whole number from 1 to 1000. Received"):
        Schedule(scaled_linear()).steps(count)

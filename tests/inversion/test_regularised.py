"""The regularised inversion's losses against closed forms, and what they do to noise."""

from __future__ import annotations

import random

import pytest
import torch

import promptweave as pw
from promptweave.core.clock import Step
from promptweave.inversion.ddim import invert
from promptweave.inversion.regularised import Regularised, auto_correlation, divergence

STEP = Step(3, 10, 300, 200)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_losses_of_known_noise():
    constant = torch.full((1, 4, 64, 64), 0.5, dtype=torch.float64)
    # four channels, four levels (64, 32, 16, 8), two axes, and mean(c c)^2 each
    assert float(auto_correlation(constant, random.Random(0))) == pytest.approx(4 * 4 * 2 * 0.5**4)
    noise = normal(1, 4, 64, 64)
    noise = (noise - noise.mean()) / noise.std()
    assert float(divergence(noise)) == pytest.approx(0, abs=1e-6)
    assert float(divergence(3 * noise)) == pytest.approx(9 - 1 - torch.log(torch.tensor(9.0)).item(), rel=1e-5)
    assert float(auto_correlation(noise, random.Random(0))) < 0.05


def test_noise_with_a_pattern_is_led_towards_noise_without():
    pattern = normal(1, 4, 64, 64) + torch.linspace(-1, 1, 64, dtype=torch.float64)
    better = Regularised(pair=200.0, kl=2000.0)(pattern, STEP)
    assert divergence(better) < 0.5 * divergence(pattern)
    assert auto_correlation(better, random.Random(1)) < 0.9 * auto_correlation(pattern, random.Random(1))
    assert torch.equal(Regularised(0, 0)(pattern, STEP), pattern)


def test_each_picture_is_corrected_alone_and_the_seed_is_all_that_is_random():
    two = normal(2, 4, 16, 16)
    both = Regularised()(two, STEP)
    assert torch.equal(both[:1], Regularised()(two[:1], STEP)) and torch.equal(both[1:], Regularised()(two[1:], STEP))
    assert not torch.equal(both, Regularised(seed=1)(two, STEP))
    assert not torch.equal(both, Regularised()(two, Step(4, 10, 300, 200)))
    with pytest.raises(ValueError, match="draws of at least 1"):
        Regularised(draws=0)


def test_the_noise_of_a_picture_looks_more_like_noise(tiny):
    z = 0.7 * pw.noise_for(tiny, 0) + torch.linspace(-1, 1, 16)
    plain = invert(tiny, z, "a photo of a cat", steps=10).noise
    calmer = invert(tiny, z, "a photo of a cat", steps=10, correct=Regularised(kl=400.0)).noise
    assert divergence(calmer) < divergence(plain)

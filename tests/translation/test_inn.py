"""The conditional invertible network against autograd, against its equations written naively, and as a distribution."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from promptweave.translation.flow import ActNorm, ConditionalFlow, FlowSizes, Leaky
from promptweave.translation.train_flows import seeded

SIZES = FlowSizes(dim=6, condition=5, embedding=4, blocks=3, hidden=7, depth=2, slope=0.9)


def made(sizes: FlowSizes = SIZES, seed: int = 0) -> ConditionalFlow:
    """A network in double precision with weights that do something, in every layer."""
    with seeded(seed):
        flow = ConditionalFlow(sizes, seed).double()
    generator = torch.Generator().manual_seed(seed)
    for weight in flow.parameters():
        weight.data += 0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return flow


def drawn(count: int, sizes: FlowSizes = SIZES, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(count, sizes.dim, generator=generator, dtype=torch.float64) + 0.5
    return z, torch.randn(count, sizes.condition, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("dim", [2, 6, 7])
@pytest.mark.parametrize("slope", [1.0, 0.3])
def test_the_inverse_is_exact(dim, slope):
    sizes = dataclasses.replace(SIZES, dim=dim, slope=slope, blocks=6)
    flow, (z, c) = made(sizes), drawn(11, sizes)
    v, _ = flow(z, c)
    assert float((v - z).detach().abs().max()) > 0.1
    assert float((flow.inverse(v, c) - z).detach().abs().max()) < 1e-10
    assert float((flow(flow.inverse(z, c), c)[0] - z).detach().abs().max()) < 1e-10


@pytest.mark.parametrize("dim", [4, 5])
@pytest.mark.parametrize("slope", [1.0, 0.3])
def test_the_log_determinant_is_that_of_the_jacobian(dim, slope):
    sizes = dataclasses.replace(SIZES, dim=dim, slope=slope)
    flow, (z, c) = made(sizes), drawn(9, sizes)
    _, said = flow(z, c)
    for row in range(len(z)):
        jacobian = torch.autograd.functional.jacobian(lambda one: flow(one[None], c[row : row + 1])[0][0], z[row])  # noqa: B023
        assert float(said[row].detach()) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-10)


def test_the_activation_is_not_free():
    """The published code gives its leaky activation a log-determinant of zero."""
    y, change = Leaky(0.5)(torch.tensor([[-2.0, 4.0, -6.0]]))
    assert y.tolist() == [[-1.0, 4.0, -3.0]] and float(change) == pytest.approx(2 * math.log(0.5))


def test_a_block_follows_the_published_equations():
    """ActNorm, activation, second half by the first, halves swapped, the other half by that, permutation."""
    flow, (z, c) = made(dataclasses.replace(SIZES, blocks=1)), drawn(4)
    (block,) = flow.blocks
    said, _ = flow(z, c)
    e = flow.embedder(c)
    x = (z + block.norm.shift) * torch.exp(block.norm.log_scale)
    x = torch.where(x < 0, 0.9 * x, x)
    for number, half in enumerate(block.coupling.halves):
        a, b = (x[:, :3], x[:, 3:]) if number == 0 else (x[:, 3:], x[:, :3])
        seen = torch.cat([a, e], 1)
        values = []
        for net in (half.s, half.t):
            layers = [layer for layer in net if hasattr(layer, "weight")]
            assert len(layers) == 4  # a hidden depth of two
            h = seen
            for layer in layers[:3]:
                h = h @ layer.weight.T + layer.bias
                h = torch.maximum(h, 0.01 * h)
            h = h @ layers[3].weight.T + layers[3].bias
            values.append(h)
        x = torch.cat([a, b * torch.exp(torch.tanh(values[0])) + values[1]], 1)
    assert float((x[:, block.shuffle.order] - said).detach().abs().max()) < 1e-12


def test_initialisation_standardises_what_leaves_each_norm():
    flow, (z, c) = ConditionalFlow(SIZES).double(), drawn(200)
    seen: list[Tensor] = []
    for block in flow.blocks:
        block.norm.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    assert not flow.initialised
    flow.initialise(z, c)
    assert flow.initialised and len(seen) == SIZES.blocks
    for y in seen:
        assert float(y.mean(0).abs().max()) < 1e-12
        assert float((y.std(0) - 1).abs().max()) < 1e-5  # 1e-6 is added to the deviation, as published
    with pytest.raises(ValueError, match="at least two codes, for their spread. Received 1"):
        flow.initialise(z[:1], c[:1])


def test_actnorm_says_the_same_for_every_sample():
    norm = ActNorm(3)
    norm.log_scale.data = torch.tensor([0.5, -1.0, 2.0])
    assert norm(torch.zeros(4, 3))[1].tolist() == [1.5] * 4


def test_the_density_integrates_to_one_and_depends_on_the_condition():
    """Over a grid of two dimensions, with the constant that the loss leaves out."""
    sizes = FlowSizes(dim=2, condition=3, embedding=2, blocks=2, hidden=5)
    flow = made(sizes, seed=3)
    axis = torch.linspace(-30, 30, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    found = []
    for c in 5 * drawn(2, sizes)[1]:
        with torch.no_grad():
            v, change = flow(grid, c.expand(len(grid), -1))
        found.append((change - 0.5 * v.square().sum(1)).exp() / (2 * math.pi) * 0.15**2)
    assert all(float(density.sum()) == pytest.approx(1, abs=2e-3) for density in found)
    assert float((found[0] - found[1]).abs().sum()) > 0.01


def test_the_loss_is_half_the_size_for_noise_and_the_identity():
    flow = ConditionalFlow(FlowSizes(dim=8, condition=2, blocks=2, hidden=4))
    z = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    assert float(flow.loss(z, torch.zeros(4000, 2)).detach()) == pytest.approx(4, abs=0.1)  # C/2 of N(0, 1)


def test_what_does_not_fit_is_named():
    flow = ConditionalFlow(SIZES)
    with pytest.raises(ValueError, match=r"codes \[n, 6\] and conditions \[n, 5\]. Received \[2, 6\] and \[3, 5\]"):
        flow(torch.zeros(2, 6), torch.zeros(3, 5))
    with pytest.raises(ValueError, match="slope of a flow is above 0 and at most 1"):
        FlowSizes(4, 4, slope=0.0)
    with pytest.raises(ValueError, match="dim of a flow is a whole number of at least 2"):
        FlowSizes(1, 4)

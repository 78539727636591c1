"""What stays the same from step to step is computed once, and found again only while it is the same."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from promptweave import Control, Hooks, LocalBlend, RecordMaps, Replace, Reweight, SemanticGuidance, noise_for, sample
from promptweave.core.accumulator import Maps
from promptweave.core.clock import Step
from promptweave.core.memory import MATRICES, Layer, Memory
from promptweave.core.rows import Layout, Rows
from promptweave.core.site import Site, Sites

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"


@dataclass(frozen=True)
class Louder(Control):
    """Another text in every step."""

    def bind(self, run):
        return _Louder()


class _Louder(Hooks):
    def condition(self, step, text):
        return text.with_cond(text.cond * (1 + step.index / 100))


@pytest.fixture()
def projections(tiny, monkeypatch):
    """How often keys of the text are projected, all layers together, and how many layers there are."""
    layers = [module for name, module in tiny.unet.named_modules() if name.endswith("attn2.to_k")]
    calls: list[int] = []
    handles = [layer.register_forward_hook(lambda *_: calls.append(1)) for layer in layers]
    yield calls, len(layers)
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    ("controls", "times"),
    [
        ((Replace(),), 1), ((Replace(), LocalBlend("dog", start=0), Reweight({"bike": 2})), 1), ((RecordMaps(),), 1),
        ((SemanticGuidance({"a lion": 4}, warmup=0),), 1), ((Replace(), Louder()), 4),
    ],
)  # fmt: skip
def test_keys_of_a_text_that_stays_are_projected_once(tiny, projections, controls, times):
    calls, layers = projections
    sample(tiny, [SOURCE, TARGET], noise=noise_for(tiny, 0), steps=4, guidance=3.0, controls=controls)
    assert len(calls) == times * layers


def test_a_text_that_changes_is_read_anew(tiny64):
    """Run by run: three steps under a changing text equal three runs that are told the text of their step."""
    noise = noise_for(tiny64, 0).double()
    moved = sample(tiny64, [SOURCE], noise=noise, steps=3, guidance=1.0, controls=[Louder()]).latents
    still = sample(tiny64, [SOURCE], noise=noise, steps=3, guidance=1.0, controls=[RecordMaps()]).latents
    plain = sample(tiny64, [SOURCE], noise=noise, steps=3, guidance=1.0).latents
    assert torch.equal(still, plain) and (moved - plain).abs().max() > 1e-6


def test_a_layer_keeps_a_bounded_number_of_products():
    text = torch.zeros(1, 3, 2)
    layer = Layer(text, text, text, text)
    v = torch.ones(2, 2)
    matrix = torch.eye(2)
    first = layer.product(matrix, v, lambda: matrix @ v)
    assert layer.product(matrix, v, lambda: pytest.fail("asked twice")) is first
    for number in range(2 * MATRICES):
        layer.product(torch.full((2, 2), float(number)), v, lambda: v)
    assert len(layer.products) == MATRICES


def test_memory_tells_tensors_by_identity():
    memory, one, two = Memory(), torch.zeros(2), torch.zeros(2)
    made = memory.stacked("x", (one,), lambda: torch.ones(1))
    assert memory.stacked("x", (one,), lambda: pytest.fail("made twice")) is made
    assert memory.stacked("x", (two,), lambda: torch.ones(1)) is not made


def filled(steps, fused):
    """Sums over steps in some of which the target is edited, with and without the common call."""
    layout, site = Layout(("uncond", "cond"), 2, 2), Site("s", "cross", "down", 0, 2, (2, 3))
    draw = torch.Generator().manual_seed(0)
    weights = {0: torch.rand(5, 3, dtype=torch.float64), 1: torch.rand(5, 2, dtype=torch.float64)}
    weights = {p: torch.linspace(0, 1, w.numel(), dtype=torch.float64).view(w.shape) for p, w in weights.items()}
    maps = Maps(Sites(), (0, 1), weights)
    for index, edited in enumerate(steps):
        q, k, v = (torch.randn(8, 2, n, 4, generator=draw, dtype=torch.float64) for n in (6, 5, 5))
        rows = Rows(q.requires_grad_(not fused), k, v, layout)
        if edited:
            rows = rows.put("cond", 1, pattern=rows["cond"][0].pattern * 2.0)
        maps.add(Step(index, len(steps), 0, 0), site, rows)
    return maps


@pytest.mark.parametrize("steps", [(0, 0), (1, 1), (0, 1, 0), (1, 0, 1, 0, 0)])
def test_maps_of_several_prompts_in_one_call_equal_those_one_by_one(steps):
    together, alone = filled(steps, True), filled(steps, False)
    assert together.counts == alone.counts
    for prompt in (0, 1):
        torch.testing.assert_close(together.total(prompt), alone.total(prompt).detach(), rtol=1e-12, atol=1e-13)

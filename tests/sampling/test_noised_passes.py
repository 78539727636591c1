"""Passes over a noised image: what the network is given, and that observers see each of them."""

from __future__ import annotations

import pytest
import torch
from families import build_flux

from promptweave.core.control import Hooks
from promptweave.core.record_maps import RecordMaps
from promptweave.models.load import load
from promptweave.sampling import noised_passes as tested
from promptweave.sampling.loop import Job, noise_for
from promptweave.sampling.noised_passes import Noising, noised, observe

PROMPT = "a photo of a cat riding a bike in the snow"


def latents(model):
    return torch.randn(1, model.channels, 12, 16, generator=torch.Generator().manual_seed(9))


def test_levels_of_both_kinds(tiny, tokenizer):
    flow = load(build_flux(tokenizer))
    x, e = torch.randn(2, 1, 4, 3, 5)
    torch.testing.assert_close(noised(flow, x, e, 250.0), 0.75 * x + 0.25 * e)
    level = float(tiny.schedule().alpha_bar[300])
    torch.testing.assert_close(noised(tiny, x, e, 300), level**0.5 * x + (1 - level) ** 0.5 * e)
    assert [step.t for step in Noising((0.0, 0.3, 0.5), 1).steps(tiny)] == [500, 300, 0]
    assert [step.t for step in Noising((0.3, 0.45), 1).steps(flow)] == [450.0, 300.0]


def test_maps_are_the_mean_of_single_passes(tiny, monkeypatch):
    monkeypatch.setattr(tested, "BATCH", 3)
    x, how = latents(tiny), Noising((0.2, 0.6), 2, seed=5)
    run = how.run(Job([PROMPT], x, 1).bind(tiny)[0])
    together, by_step = RecordMaps().bind(run), RecordMaps(by_step=True).bind(run)
    observe(tiny, PROMPT, x, how, [together])
    observe(tiny, PROMPT, x, how, [by_step])
    assert by_step.times == {0: 600, 1: 200}
    single: dict[int, list[torch.Tensor]] = {}
    for index, t in enumerate((600, 200)):
        for number in range(2):
            alone = Noising((t / 1000,), 1, seed=5 + number)
            hook = RecordMaps().bind(alone.run(run))
            observe(tiny, PROMPT, x, alone, [hook])
            single.setdefault(index, []).append(hook.maps.mean(0))
    for index, maps in single.items():
        torch.testing.assert_close(by_step.maps.mean(0, None, index), torch.stack(maps).mean(0))
    torch.testing.assert_close(
        together.maps.mean(0), torch.stack([m for maps in single.values() for m in maps]).mean(0)
    )


def test_the_network_is_given_the_noised_image_and_the_prompt(tiny, monkeypatch):
    given = []
    real = tiny.predict
    monkeypatch.setattr(
        tiny, "predict", lambda z, t, context, *a, **k: given.append((z, t)) or real(z, t, context, *a, **k)
    )
    x = latents(tiny)
    observe(tiny, PROMPT, x, Noising((0.4,), 2, seed=7), [Hooks()])
    ((z, t),) = given
    noise = noise_for(tiny, 7, 2, (24, 32))
    torch.testing.assert_close(z, torch.cat([noised(tiny, x, noise[n : n + 1], 400) for n in range(2)]))
    assert [float(one) for one in torch.as_tensor(t).flatten()] == [400, 400]


@pytest.mark.parametrize(("times", "noises"), [((), 1), ((1.0,), 1), ((-0.1,), 1), ((0.3,), 0), ((0.3,), True)])
def test_times_and_noises_that_are_none(times, noises):
    with pytest.raises(ValueError, match="Received"):
        Noising(times, noises)

"""Without controls the loop is diffusers' own; with them it folds their hooks in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from promptweave import Control, Hooks, RecordMaps, Reweight, Sites, noise_for, sample
from promptweave.core.clock import Step
from promptweave.core.control import Run, Text
from promptweave.core.rows import Rows
from promptweave.core.site import Site

PROMPTS = ["a photo of a cat riding a bike", "a black cat next to a red car", "a lion"]
STEPS = 3


def theirs(model, noise, output, **options):
    """diffusers' pipeline from the same noise: prompts first, then images, as in our batch."""
    model.pipeline.set_progress_bar_config(disable=True)
    latents = noise.repeat(len(PROMPTS), 1, 1, 1)
    return model.pipeline(
        PROMPTS, num_images_per_prompt=len(noise), latents=latents, num_inference_steps=STEPS, output_type=output,
        height=noise.shape[-2] * model.factor, width=noise.shape[-1] * model.factor, **options,
    ).images  # fmt: skip


@pytest.mark.parametrize("kind", ["tiny", "tiny_v", "tiny64"])
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_latents_equal_those_of_diffusers_bit_for_bit(kind, guidance, request):
    model = request.getfixturevalue(kind)
    noise = torch.randn(2, 4, 12, 8, generator=torch.Generator().manual_seed(0)).to(model.dtype)
    ours = sample(model, PROMPTS, noise=noise, steps=STEPS, guidance=guidance, negative="snow")
    wanted = theirs(model, noise, "latent", guidance_scale=guidance, negative_prompt=["snow"] * len(PROMPTS))
    assert ours.latents.shape == (3, 2, 4, 12, 8)
    if kind == "tiny64":  # diffusers' scheduler stays in single precision; its table is ours
        torch.testing.assert_close(ours.latents.flatten(0, 1), wanted, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(ours.latents.flatten(0, 1), wanted)


def test_pictures_equal_those_of_diffusers(tiny):
    noise = noise_for(tiny, 3, 1, (24, 16))
    ours = sample(tiny, PROMPTS, noise=noise, steps=STEPS).pictures
    wanted = np.stack([np.asarray(picture) for picture in theirs(tiny, noise, "pil")])
    # The batch is decoded one by one here and at once there; a value at the edge of rounding may fall either way.
    assert ours.shape == (3, 1, 24, 16, 3) and ours.dtype == np.uint8
    assert np.abs(ours[:, 0].astype(int) - wanted).max() <= 1


def test_a_recorder_changes_nothing_and_sums_to_one(tiny):
    noise = noise_for(tiny, 0, 2)
    plain = sample(tiny, PROMPTS, noise=noise, steps=STEPS)
    seen = sample(tiny, PROMPTS, noise=noise, steps=STEPS, controls=[RecordMaps(prompts=(0, 2))])
    assert torch.equal(plain.latents, seen.latents)
    maps = seen.hooks[0].maps
    mean = maps.mean(2)
    assert mean.shape == (2, *seen.run.map_grid, 77)
    torch.testing.assert_close(mean.sum(-1), torch.ones(2, *seen.run.map_grid))


def test_noise_is_drawn_for_each_image_alone(tiny):
    together, alone = noise_for(tiny, 5, 3, (24, 16)), noise_for(tiny, 6, 1, (24, 16))
    assert together.shape == (3, 4, 12, 8)
    assert torch.equal(together[1:2], alone) and not torch.equal(together[0], together[1])


def test_all_prompts_start_from_the_same_noise_and_noise_is_left_alone(tiny):
    noise = noise_for(tiny, 0, 1)
    before = noise.clone()
    made = sample(tiny, [PROMPTS[0]] * 2, noise=noise, steps=STEPS)
    torch.testing.assert_close(made.latents[0], made.latents[1], rtol=1e-4, atol=1e-5)  # rows of one batch
    assert torch.equal(noise, before)


def test_half_precision_noise_is_walked_in_single(tiny):
    noise = noise_for(tiny, 0, 1)
    assert sample(tiny, PROMPTS[:1], noise=noise.bfloat16(), steps=2).latents.dtype == torch.float32


@dataclass(frozen=True)
class Note(Control):
    """Writes down what is called."""

    name: str
    log: tuple[list[Any]] = ()

    def bind(self, run: Run) -> Hooks:
        return Noting(self.name, self.log[0], run)


@dataclass
class Noting(Hooks):
    name: str
    log: list[Any]
    run: Run

    def condition(self, step: Step, text: Text) -> Text:
        self.log.append((self.name, "condition", step.index))
        return text

    def before_step(self, step: Step, z, probe):
        self.log.append((self.name, "before_step", step.index))
        return z

    def attention(self, step: Step, site: Site, rows: Rows) -> Rows:
        self.log.append((self.name, "attention", step.index))
        assert (rows.layout.branches, rows.layout.prompts, rows.layout.images) == (("uncond", "cond"), 3, 2)
        return rows

    def after_step(self, step: Step, z):
        assert z.shape == (3, 2, 4, 16, 16)
        self.log.append((self.name, "after_step", step.index))
        return z

    def report(self) -> dict[str, Any]:
        return {"name": self.name}


def test_hooks_are_folded_left_to_right_at_every_step(tiny):
    log: list[Any] = []
    ticks: list[int] = []
    made = sample(
        tiny, PROMPTS, noise=noise_for(tiny, 0, 2), steps=2, controls=[Note("one", (log,)), Note("two", (log,))],
        progress=lambda step, z: ticks.append(step.index),
    )  # fmt: skip
    sites = len(made.run.sites)
    wanted = []
    for step in range(2):
        wanted += [(name, hook, step) for name in ("one", "two") for hook in ("condition", "before_step")]
        for hook, times in (("attention", sites), ("after_step", 1)):
            wanted += [(name, hook, step) for _ in range(times) for name in ("one", "two")]
    assert log == wanted
    assert ticks == [0, 1]
    assert made.reports == ({"name": "one"}, {"name": "two"})


def test_what_a_run_knows(tiny):
    run = sample(tiny, PROMPTS, noise=noise_for(tiny, 0, 2, (24, 16)), steps=1).run
    assert (run.prompts, run.steps, run.images, run.tokens) == (tuple(PROMPTS), 1, 2, 77)
    assert (run.latent_grid, run.map_grid) == ((12, 8), (12, 8))
    assert run.sites == tiny.sites((12, 8)) and [w.prompt for w in run.words] == PROMPTS


@dataclass(frozen=True)
class Climb(Control):
    """A step up the gradient of a word's map, the bones of Attend-and-Excite."""

    def bind(self, run: Run) -> Hooks:
        return Climbing(run)


@dataclass
class Climbing(Hooks):
    run: Run

    def before_step(self, step: Step, z, probe):
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            total = probe(z, Sites("cross", grid=self.run.map_grid)).total(1)[..., 2].sum()
            (gradient,) = torch.autograd.grad(total, z)
        assert gradient[1].abs().max() > 0 and gradient[0].abs().max() == 0
        return (z + gradient).detach()


def test_a_probe_gives_maps_with_gradients(tiny):
    noise = noise_for(tiny, 0, 1)
    plain, moved = (sample(tiny, PROMPTS[:2], noise=noise, steps=2, controls=c).latents for c in ([], [Climb()]))
    torch.testing.assert_close(moved[0], plain[0], rtol=1e-4, atol=1e-5)  # the tapped network, the same arithmetic
    assert (moved[1] - plain[1]).abs().max() > 1e-4


@dataclass(frozen=True)
class Probe(Control):
    """Looks once a step, and changes nothing."""

    seen: tuple[list[torch.Tensor]] = ()

    def bind(self, run: Run) -> Hooks:
        return Probing(self.seen[0], run)


@dataclass
class Probing(Hooks):
    seen: list[torch.Tensor]
    run: Run

    def before_step(self, step: Step, z, probe):
        self.seen.append(probe(z, Sites("cross", grid=self.run.map_grid)).mean(1).detach())
        return z


def test_a_probe_sees_the_controls_to_its_left_only(tiny):
    alone, before, after = [], [], []
    noise, edit = noise_for(tiny, 0, 1), Reweight({"bike": 3.0})
    for seen, controls in (
        (alone, [Probe((alone,))]), (before, [Probe((before,)), edit]), (after, [edit, Probe((after,))]),
    ):  # fmt: skip
        sample(tiny, [PROMPTS[0]] * 2, noise=noise, steps=1, controls=controls)
        assert len(seen) == 1
    assert torch.equal(before[0], alone[0])
    assert (after[0] - alone[0]).abs().max() > 1e-3


@dataclass(frozen=True)
class Values(Control):
    """Values from other text than keys."""

    scale: float

    def bind(self, run: Run) -> Hooks:
        return Valuing(self.scale)


@dataclass
class Valuing(Hooks):
    scale: float

    def condition(self, step: Step, text: Text) -> Text:
        return text.with_values(text.values * self.scale)


def test_values_apart_from_keys(tiny):
    noise = noise_for(tiny, 0, 1)
    plain, same, other = (
        sample(tiny, PROMPTS, noise=noise, steps=2, controls=c).latents for c in ([], [Values(1.0)], [Values(2.0)])
    )
    assert torch.equal(same, plain)
    assert (other - plain).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "at least one prompt"), ({"guidance": float("nan")}, "guidance must be a finite number"),
        ({"steps": 0}, "whole number from 1"), ({"noise": torch.zeros(1, 3, 16, 16)}, r"Received \(1, 3, 16, 16\)"),
        ({"noise": torch.zeros(0, 4, 16, 16)}, r"Received \(0, 4, 16, 16\)"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be(tiny, options, message):
    arguments = {"prompts": PROMPTS, "noise": noise_for(tiny, 0, 1), "steps": 2, **options}
    with pytest.raises(ValueError, match=message):
        sample(tiny, **arguments)


def test_a_size_that_the_autoencoder_cannot_make(tiny):
    with pytest.raises(ValueError, match="multiples of 2.*Received 25 x 16"):
        noise_for(tiny, 0, 1, (25, 16))

"""Probes are recorded by nobody: what controls keep of a run is the same with and without a control that probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import pytest
import torch
from families import build_sd3

import promptweave as pw
from promptweave import methods
from promptweave.core.control import Control, Hooks, Run
from promptweave.sampling.recording import Capture

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
STEPS = 3
EXCITE = pw.AttendAndExcite(
    ("cat",), share=1.0, scale=20, thresholds=((0, 0.9), (0.4, 0.9)), iterations=2, prompts=(0,)
)


@dataclass(frozen=True)
class Probing(Control):
    """Probes in every step, with and without a gradient, and changes nothing."""

    def bind(self, run: Run) -> Hooks:
        class Asking(Hooks):
            def before_step(self, step, z, probe):
                maps = probe(z, run.map_sites)
                assert maps.count(0) > 0

                def losses(maps):
                    return torch.stack([maps.mean(row).square().sum((-3, -2, -1)) for row in range(len(z))])

                _, gradient = probe.gradient(z, run.map_sites, losses)
                assert gradient.abs().max() > 0
                return z

        return Asking()


def kept(x: Any) -> Any:
    """Everything that hooks hold, down to tensors; parameters and what is known of the run left out."""
    if isinstance(x, torch.Generator):
        return x.get_state()
    if isinstance(x, Mapping):
        return {key: kept(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [kept(value) for value in x]
    if isinstance(x, Hooks) or (is_dataclass(x) and not isinstance(x, Control | Run | type)):
        return {name: kept(value) for name, value in vars(x).items()}
    return x if isinstance(x, torch.Tensor | set | frozenset | str | int | float | bool) else None


def assert_same(one: Any, two: Any, where: str = "") -> None:
    assert type(one) is type(two), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_same(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), where
        for number, pair in enumerate(zip(one, two, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    else:
        assert one == two, where


UNET: tuple[Control, ...] = (
    pw.Replace(),
    pw.Refine(),
    pw.Reweight({"dog": 2.0}),
    pw.LocalBlend(("cat", "dog"), subtract="bike"),
    pw.SharedStart(0.5),
    pw.MasaCtrl(start=0.0, words=("cat", "dog")),
    pw.PlugAndPlay(block="up_res_0_1"),
    pw.DirectedDiffusion({"bike": (0, 0, 0.5, 0.5)}),
    pw.StructuredDiffusion(("a bike",)),
    pw.StructuredDiffusion(("a bike",), "keys"),
    pw.SemanticGuidance({"a lion": 4.0}, attention=True),
    pw.AttendAndExcite(("bike",), share=1.0, thresholds=((0, 0.9),), iterations=2),
    pw.Pix2PixZero("cat", "dog"),
    pw.PerturbedAttentionGuidance(),
    pw.SmoothedEnergyGuidance(),
    pw.SkipLayerGuidance(layers=(2,), window=(0, 1)),
    pw.PromptMixing("bike", "car", window=1.0, preserve="dog"),
    pw.Inpaint(((1.0,) * 16 + (0.0,) * 16,) * 32),
    pw.DeltaDenoising(rounds=1),
    pw.ContrastiveDenoising(rounds=1),
    pw.RecordMaps(),
    pw.RecordMaps(by_step=True, by_site=True, by_head=True, own=True),
    Capture(),
    Capture(row=1),
)
JOINT: tuple[Control, ...] = (
    pw.Replace(joint=1.0),
    pw.Reweight({"dog": 2.0}),
    pw.LocalBlend(("cat", "dog")),
    pw.Consist("cat"),
    pw.FlowEdit(),
    pw.UniEdit(),
    pw.DirectEdit(inject=0.5),
    pw.KVEdit(words="cat"),
    pw.PerturbedAttentionGuidance(),
    pw.SkipLayerGuidance(layers=(1,), window=(0, 1)),
    pw.RecordMaps(),
    Capture(),
)


def pairs() -> list[Any]:
    named = [("unet", control) for control in UNET] + [("joint", control) for control in JOINT]
    return [pytest.param(*pair, id=f"{pair[0]}-{type(pair[1]).__name__}-{number}") for number, pair in enumerate(named)]


def made(model, controls, target=TARGET, source=SOURCE, steps=STEPS, guidance=3.0):
    noise = pw.noise_for(model, 0).to(model.dtype)
    return pw.sample(model, [source, target], noise=noise, steps=steps, guidance=guidance, controls=controls, seed=5)


@pytest.fixture(scope="module")
def joint(tokenizer):
    return pw.load(build_sd3(tokenizer))


@pytest.mark.parametrize(("kind", "control"), pairs())
def test_a_control_that_probes_changes_nothing_that_another_keeps(tiny, joint, kind, control):
    model = tiny if kind == "unet" else joint
    target = SOURCE if isinstance(control, pw.Pix2PixZero) else TARGET
    source = TARGET if isinstance(control, pw.PromptMixing) else SOURCE  # which keeps the shape of the dog
    plain = made(model, [control], target, source)
    probed = made(model, [Probing(), control, Probing()], target, source)
    assert torch.equal(probed.latents, plain.latents)
    assert_same(kept(probed.hooks[1]), kept(plain.hooks[0]), type(control).__name__)
    assert probed.reports[1] == plain.reports[0]


def test_every_method_is_in_the_law():
    classes = {value for value in vars(methods).values() if isinstance(value, type) and issubclass(value, Control)}
    assert classes <= {type(control) for control in (*UNET, *JOINT)}


def test_a_recorder_counts_the_maps_of_the_run_whoever_probes(tiny):
    """9 steps of 2 layers on the map grid, whether or not the latents are moved with probes."""
    sites = len([site for site in tiny.sites((16, 16)) if site in tiny.map_sites((16, 16))])
    for controls in ([pw.RecordMaps()], [pw.RecordMaps(), EXCITE], [EXCITE, pw.RecordMaps()]):
        seen = made(tiny, controls, steps=9).hooks[controls.index(pw.RecordMaps())]
        assert seen.maps.count(0) == seen.maps.count(1) == 9 * sites
        assert seen.maps.mean(0).sum(-1).sub(1).abs().max() < 1e-5


def test_controls_that_only_look_commute_with_those_that_probe(tiny):
    """A local blend changes no attention, so that its place beside Attend-and-Excite is free."""
    blend = pw.LocalBlend(("cat", "dog"), start=0.0, threshold=0.6)
    first, last = made(tiny, [blend, EXCITE]), made(tiny, [EXCITE, blend])
    assert torch.equal(first.latents, last.latents)
    assert first.reports[0] == last.reports[1] and 0 < first.reports[0]["mask_area"][1][-1] < 1
    assert (first.latents - made(tiny, [blend]).latents).abs().max() > 1e-3


def test_gradient_checkpointing_computes_again_what_nobody_records_again(tokenizer):
    """The way back through checkpointed layers asks their controls once more."""
    from tiny import build_tiny

    model = pw.load(build_tiny(tokenizer))
    controls = [pw.MasaCtrl(start=0.0, words=("cat", "dog")), pw.RecordMaps(), EXCITE]
    plain = made(model, controls)
    model.unet.enable_gradient_checkpointing()
    model.unet.train()
    again = made(model, controls)
    assert again.hooks[1].maps.counts == plain.hooks[1].maps.counts
    torch.testing.assert_close(again.latents, plain.latents, rtol=1e-5, atol=1e-5)

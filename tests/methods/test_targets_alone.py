"""Several targets in one run are what they are alone, whatever is asked for; words of the source included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from families import build_flux, build_sd3

import promptweave as pw
from promptweave import LocalBlend, MasaCtrl, Refine, Replace, Reweight, SharedStart
from promptweave.sampling.loop import Job
from promptweave.words import AmbiguousWord

SOURCE = "a photo of a cat riding a bike in the snow"
WORDS = {  # of each target the words that none of the others has
    "a photo of a zebra riding a bike in the snow": "zebra",
    "a photo of a cat riding a skateboard in the snow": "skateboard",
    "a photo of a black cat riding a red bike in the snow at night": "night",
}
TARGETS, ALL = tuple(WORDS), tuple(WORDS.values())
LEFT = ((1.0,) * 8 + (0.0,) * 8,) * 16
RIGHT = tuple(row[::-1] for row in LEFT)
Make = Callable[[Sequence[str]], Sequence[pw.Control]]


def relative(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x - y).norm() / y.norm())


def check(model: Any, make: Make, close: float) -> None:
    """The law for `make`, which gets the words that it may name."""
    run = partial(pw.sample, model, noise=pw.noise_for(model, 3).to(model.dtype), steps=3, guidance=3.0)
    together = run([SOURCE, *TARGETS], controls=make(ALL)).latents
    for row, target in enumerate(TARGETS, 1):
        alone = run([SOURCE, target], controls=make([WORDS[target]])).latents
        assert relative(together[row], alone[1]) < close
        assert relative(together[0], alone[0]) < close
    plain = run([SOURCE, target]).latents
    assert relative(alone[1], plain[1]) > 1e-5, "the control must act, else this proves nothing"


CASES: dict[str, Make] = {
    "refine": lambda words: [Refine(0.6, 0.4)],
    "a window for each word": lambda words: [Refine({"default": 0.5, **dict.fromkeys(words, (0.25, 1.0))}, 0.4)],
    "the authors' maps": lambda words: [Refine(0.6, 0.4, reference_compat=True)],
    "weights": lambda words: [Refine(), Reweight(dict.fromkeys(words, 3.0), window=0.8)],
    "blend": lambda words: [Refine(), LocalBlend(tuple(words), threshold=0.7)],
    "blend on injected maps": lambda words: [Refine(), LocalBlend(tuple(words), threshold=0.7, maps="effective")],
    "blend without some": lambda words: [Refine(), LocalBlend("riding", tuple(words), 0.5, 0.8)],
    "blend in a drawn region": lambda words: [Refine(), LocalBlend(tuple(words), threshold=0.7, mask=LEFT)],
    "blend or a drawn region": lambda words: [
        Refine(),
        LocalBlend(tuple(words), threshold=0.7, mask=LEFT, combine="union"),
    ],  # fmt: skip
    "a drawn region alone": lambda words: [Refine(), LocalBlend(mask=LEFT, start=0.5)],
    "shared start": lambda words: [SharedStart(0.4)],
    "MasaCtrl": lambda words: [MasaCtrl(0, 0.5)],
    "MasaCtrl with union": lambda words: [MasaCtrl(0, 0.5, union=True)],
    "MasaCtrl with words": lambda words: [MasaCtrl(0, 0.5, words=tuple(words), threshold=0.4)],
    "MasaCtrl with drawn masks": lambda words: [MasaCtrl(0, 0.5, masks=(LEFT, RIGHT))],
    "Plug-and-Play": lambda words: [pw.PlugAndPlay()],
    "semantic guidance": lambda words: [pw.SemanticGuidance({"a red car": 5}, warmup=0, attention=True)],
    "Attend-and-Excite": lambda words: [pw.AttendAndExcite("riding", share=0.5, thresholds=())],
    "Directed Diffusion": lambda words: [pw.DirectedDiffusion({"riding": (0, 0, 0.5, 1)}, prompts=None)],
    "Contrastive Denoising": lambda words: [pw.ContrastiveDenoising(rounds=1)],
    "Structured Diffusion": lambda words: [pw.StructuredDiffusion(("riding",))],
}


@pytest.mark.parametrize("name", list(CASES))
def test_targets_are_what_they_are_alone(tiny64, name):
    check(tiny64, CASES[name], 1e-11)


JOINT: dict[str, Make] = {
    "joint": lambda words: [Refine(joint=0.5)],
    "joint weights": lambda words: [Reweight(dict.fromkeys(words, 3.0))],
    "joint blend": lambda words: [Refine(joint=0.5), LocalBlend(tuple(words), "riding", 0.7, 0.9)],
    "Consist": lambda words: [pw.Consist("cat")],
    "FlowEdit": lambda words: [pw.FlowEdit(0.7)],
    "UniEdit": lambda words: [pw.UniEdit()],
    "DirectEdit": lambda words: [pw.DirectEdit(0.4)],
    "KVEdit": lambda words: [pw.KVEdit(LEFT)],
}


@pytest.fixture(scope="module", params=["sd3", "flux"])
def joint64(request, tokenizer):
    build = build_sd3 if request.param == "sd3" else build_flux
    return pw.load(build(tokenizer).to(torch.float64))


@pytest.mark.parametrize("name", list(JOINT))
def test_targets_of_joint_networks_are_what_they_are_alone(joint64, name):
    check(joint64, JOINT[name], 1e-6)  # the scheduler of flow models rounds the latents to single precision


def test_options_of_an_edit_are_each_target_s_own(tiny64):
    """`edit` chooses Replace for two of the targets and Refine for the third."""

    def made(targets: Sequence[str], words: Sequence[str]) -> torch.Tensor:
        return pw.edit(
            SOURCE, *targets, model=tiny64, steps=4, guidance=3.0, seed=2, self_attention=0.5,
            cross={"default": 0.8, "a#2": 0.5, **dict.fromkeys(words, 0.3)},
            weights={"riding": 1.3, **dict.fromkeys(words, 2.5)},
            blend=words, subtract="snow", threshold=0.5, mask=LEFT, combine="union", shared_start=0.25,
        ).sample.latents  # fmt: skip

    together = made(TARGETS, ALL)
    for row, target in enumerate(TARGETS, 1):
        alone = made([target], [WORDS[target]])
        assert relative(together[row], alone[1]) < 1e-11 and relative(together[row], together[0]) > 1e-3


def test_the_source_s_words_are_those_of_the_target_that_changed_them(tiny64):
    """In the authors' code they are shared by all targets."""
    swaps = TARGETS[:2]
    source = tiny64.words(SOURCE)
    for compat, wanted in ((False, [{"cat"}, {"bike"}]), (True, [{"cat", "bike"}] * 2)):
        control = LocalBlend(("zebra", "skateboard"), reference_compat=compat)
        _, (hooks,) = Job([SOURCE, *swaps], pw.noise_for(tiny64, 0), 4, 3.0, [control]).bind(tiny64)
        columns = hooks.maps.weights[0].unflatten(1, (2, 2))[..., 0].T
        assert [set(column.nonzero().flatten().tolist()) for column in columns] == [
            {token for word in words for token in source.find(word)} for words in wanted
        ]


def test_a_target_without_any_of_the_words_is_an_error(tiny64):
    noise, prompts = pw.noise_for(tiny64, 0), [SOURCE, *TARGETS[:2]]
    for control, message in (
        (LocalBlend("zebra"), "turn target 2 into the source"),
        (MasaCtrl(0, words="zebra"), "finds the foreground by words"),
    ):
        with pytest.raises(ValueError, match=f"{message}.*neither has nor changes.*'zebra'.*targets=\\(1,\\)"):
            pw.sample(tiny64, prompts, noise=noise, steps=2, controls=[control])
    drawn = LocalBlend("zebra", mask=LEFT, combine="union")  # the region that was drawn may change all the same
    assert pw.sample(tiny64, prompts, noise=noise, steps=2, controls=[drawn]).reports[0]["mask_area"][2][0] == 0.5


def test_a_word_that_is_ambiguous_in_one_target_is_an_error(tiny64):
    """It was left out there without a word, while a run of that target alone complains."""
    prompts = [SOURCE, TARGETS[0], "a photo of a zebra riding a zebra in the snow"]
    for control in (Reweight({"zebra": 2}), LocalBlend("zebra"), Replace({"zebra": 0.5}), MasaCtrl(0, words="zebra")):
        with pytest.raises(AmbiguousWord, match="occurs 2 times"):
            pw.sample(tiny64, prompts, noise=pw.noise_for(tiny64, 0), steps=2, controls=[control])

"""`two_pass`: the published algorithm with a pass of its own for the target's maps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from families import build_sd3
from references_p2p import algorithm_1
from test_prompt_to_prompt import GUIDANCE, PHRASE, SOURCE, STEPS, SWAP, ours, relative

import promptweave as pw
from promptweave import LocalBlend, Refine, Replace, Reweight, noise_for
from promptweave.words import refine_map, replace_map


def gathered(model, target, windows):
    """Edit of an added phrase: columns of M in each token's window, else those of M*."""
    mapper, _ = refine_map(model.words(SOURCE), model.words(target))

    def edit(step, m, m_star):
        new = m_star.clone()
        for n, w in enumerate(mapper):
            if w >= 0 and step < windows.get(n, windows["default"]):
                new[..., n] = m[..., w]
        return new

    return edit


@pytest.mark.parametrize(("cross", "self_steps"), [(3, 2), (1, 4), (5, 0), (0, 3)])
def test_an_added_phrase_is_the_published_algorithm(tiny64, noise64, cross, self_steps):
    want = algorithm_1(
        tiny64, SOURCE, PHRASE, noise64, STEPS, GUIDANCE, gathered(tiny64, PHRASE, {"default": cross}), self_steps
    )
    control = Refine(cross / STEPS, self_steps / STEPS)
    got, merged = (ours(tiny64, [SOURCE, PHRASE], noise64, [c]) for c in (replace(control, two_pass=True), control))
    assert relative(got, want) <= 1e-12
    assert relative(merged[1], want[1]) > 1e-3, "the passes must differ, else this proves nothing"


@pytest.mark.parametrize("cross", [1, 3])
def test_a_swap_is_the_published_algorithm(tiny64, noise64, cross):
    """It reads the target's own maps only where its window is closed and that of self-attention is not."""
    matrix = replace_map(*map(tiny64.words, (SOURCE, SWAP))).double()
    want = algorithm_1(
        tiny64, SOURCE, SWAP, noise64, STEPS, GUIDANCE, lambda i, m, star: m @ matrix if i < cross else star, 3
    )
    got, merged = (
        ours(tiny64, [SOURCE, SWAP], noise64, [Replace(cross / STEPS, 0.6, two_pass=two)]) for two in (True, False)
    )
    assert relative(got, want) <= 1e-12
    assert (relative(merged[1], want[1]) > 1e-4) == (cross == 1)


def test_windows_of_words_read_the_maps_of_the_second_pass(tiny64, noise64):
    windows = {"default": 4, **dict.fromkeys(tiny64.words(PHRASE).find("riding"), 1)}
    want = algorithm_1(tiny64, SOURCE, PHRASE, noise64, STEPS, GUIDANCE, gathered(tiny64, PHRASE, windows), 2)
    got = ours(tiny64, [SOURCE, PHRASE], noise64, [Refine({"default": 0.8, "riding": 0.2}, 0.4, two_pass=True)])
    assert relative(got, want) <= 1e-12


def test_it_goes_with_everything_else(tiny64):
    """Several targets and images, controls to its right, recordings: all as in runs of their own."""
    noise, longer = noise_for(tiny64, 4, 2).double(), PHRASE + " and snow"
    controls = [Refine(0.6, 0.8, two_pass=True), Reweight({"riding": 2.0}), LocalBlend("cat", threshold=0.7)]
    settings = {"steps": 3, "guidance": 3.0}
    many = pw.sample(tiny64, [SOURCE, PHRASE, longer], noise=noise, controls=controls, **settings).latents
    for row, target in enumerate((PHRASE, longer), 1):
        for image in range(2):
            one = noise[image : image + 1]
            alone = pw.sample(tiny64, [SOURCE, target], noise=one, controls=controls, **settings).latents
            assert relative(many[row, image], alone[1, 0]) <= 1e-12
    plain = pw.sample(tiny64, [SOURCE], noise=noise, **settings).latents
    assert relative(many[0], plain[0]) <= 1e-12, "the source is never edited"
    recording = pw.record(SOURCE, model=tiny64, seed=4, images=2, self_attention=0.8, **settings)
    again = pw.edit(recording, PHRASE, longer, model=tiny64, controls=controls).sample.latents
    assert relative(again, many) <= 1e-6  # a recording's latents begin in single precision


def test_solvers_of_two_evaluations_make_both_passes_in_each(tiny64):
    model = pw.load(tiny64.pipeline, scheduler="heun")
    control = Refine(1.0, 0.0, two_pass=True)
    first = ours(model, [SOURCE, SOURCE, PHRASE], noise_for(model, 0).double(), [control], steps=2)
    assert relative(first[1], first[0]) < 1e-6
    merged = ours(model, [SOURCE, SOURCE, PHRASE], noise_for(model, 0).double(), [Refine(1.0, 0.0)], steps=2)
    assert relative(first[2], merged[2]) > 1e-4


def test_joint_layers_have_no_maps_of_their_own_to_read(tokenizer):
    with pytest.raises(ValueError, match="joint layer has none"):
        pw.sample(
            pw.load(build_sd3(tokenizer)), [SOURCE, PHRASE], noise=torch.zeros(1, 8, 16, 16), steps=2,
            controls=[Refine(two_pass=True)],
        )  # fmt: skip

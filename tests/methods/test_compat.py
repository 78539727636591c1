"""`reference_compat` against the authors' arithmetic over a full loop, and more invariants of the method."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references_p2p import dense_sample, reference_replace_mapper, refined, replaced
from test_prompt_to_prompt import GUIDANCE, PHRASE, SOURCE, STEPS, SWAP, dense_edit, ours, relative

from promptweave import LocalBlend, Refine, Replace, Reweight, noise_for, sample
from promptweave.core.control import Control, Hooks
from promptweave.words import refine_map

LONGER = "a photo of a chipmunk riding a bike at night"


def test_word_swap_of_the_authors(tiny64, noise64):
    """Their mapper keeps the tail in place; after a swap of one token for several that differs from ours."""
    words = [tiny64.words(p) for p in (SOURCE, SWAP)]
    tokens = [[list(w.find(name))] for w, name in zip(words, ("cat", "chipmunk"), strict=True)]
    assert len(tokens[1][0]) > 1
    mapper = reference_replace_mapper(*tokens)
    want = dense_sample(
        tiny64, [SOURCE, SWAP], noise64, STEPS, GUIDANCE, dense_edit(lambda maps: replaced(maps, mapper), 3, 2)
    )
    compat = ours(tiny64, [SOURCE, SWAP], noise64, [Replace(0.6, 0.4, reference_compat=True)])
    assert relative(compat, want) <= 1e-12
    assert relative(ours(tiny64, [SOURCE, SWAP], noise64, [Replace(0.6, 0.4)])[1], want[1]) > 1e-4


def test_added_phrase_of_the_authors(tiny64, noise64):
    """Their padding looks at the source's token of its own position."""
    words = [tiny64.words(p) for p in (SOURCE, PHRASE)]
    mapper = refine_map(*words, reference_compat=True)[0]
    assert mapper[words[1].length :] == list(range(words[1].length, 77))
    want = dense_sample(
        tiny64, [SOURCE, PHRASE], noise64, STEPS, GUIDANCE, dense_edit(lambda maps: refined(maps, mapper), 3, 2)
    )
    compat = ours(tiny64, [SOURCE, PHRASE], noise64, [Refine(0.6, 0.4, reference_compat=True)])
    assert relative(compat, want) <= 1e-12


def test_local_blend_of_the_authors(tiny64, noise64):
    """The injected maps are read, and the subtracted region is that of both prompts, without pooling."""
    prompts = [SOURCE, LONGER]
    words = [tiny64.words(p) for p in prompts]
    mapper = refine_map(*words)[0]
    blend, subtract = ([list(w.find(n)) for w, n in zip(words, names, strict=True)] for names in (("cat", "chipmunk"), ("bike", "bike")))  # fmt: skip # noqa: E501
    seen = []

    def make(step):
        def edit(maps, is_cross):
            maps = dense_edit(lambda m: refined(m, mapper), 3, 2)(step)(maps, is_cross)
            if is_cross and maps.shape[2] == 256:
                seen.append(maps.clone())
            return maps

        return edit

    def region(row, tokens, pool, threshold):
        total = torch.stack(seen)[:, row][..., tokens].sum((0, 1, 3)).reshape(1, 1, 16, 16)
        total = F.max_pool2d(total, 3, 1, 1) if pool else total
        return (total / total.max() > threshold)[0, 0]

    def after(i, z):
        if i < 1:
            return z
        mask = region(0, blend[0], True, 0.5) | region(1, blend[1], True, 0.5)
        mask &= ~(region(0, subtract[0], False, 0.7) | region(1, subtract[1], False, 0.7))
        areas.append(float(mask.double().mean()))
        return torch.stack([z[0], z[0] + mask * (z[1] - z[0])])

    areas: list[float] = []
    want = dense_sample(tiny64, prompts, noise64, STEPS, GUIDANCE, make, after)
    control = LocalBlend(("cat", "chipmunk"), "bike", threshold=0.5, subtract_threshold=0.7, reference_compat=True)
    made = sample(tiny64, prompts, noise=noise64, steps=STEPS, guidance=GUIDANCE, controls=[Refine(0.6, 0.4), control])
    assert relative(made.latents[:, 0], want) <= 1e-12
    assert made.reports[1]["mask_area"][1] == pytest.approx(areas) and 0 < areas[-1] < 1


class _Watch(Control):
    """Records the unconditional patterns after the controls to its left, and fails when one was touched."""

    def bind(self, run):
        class Look(Hooks):
            def attention(self, step, site, rows):
                for row in range(rows.layout.prompts):
                    plain = (rows.q[row : row + 1] @ rows.k[row : row + 1].mT / rows.q.shape[-1] ** 0.5).softmax(-1)
                    assert torch.allclose(rows["uncond"][row].pattern.dense, plain, rtol=1e-12)
                return rows

        return Look()


def test_the_unconditional_half_is_never_edited(tiny64, noise64):
    controls = [Replace(1.0, 1.0), Reweight({"chipmunk": -2}), LocalBlend("chipmunk"), _Watch()]
    sample(tiny64, [SOURCE, SWAP], noise=noise64, steps=2, guidance=GUIDANCE, controls=controls)


def test_the_source_does_not_depend_on_controls_or_targets(tiny64, noise64):
    alone = ours(tiny64, [SOURCE], noise64, [])[0]
    for controls in ([Replace(1.0, 1.0)], [Refine(), Reweight({"bike": 5}), LocalBlend("chipmunk")]):
        assert relative(ours(tiny64, [SOURCE, SWAP], noise64, controls)[0], alone) <= 1e-12


def test_noise_is_the_same_for_all_prompts_and_apart_for_seeds(tiny):
    noise = noise_for(tiny, 3, images=2)
    assert torch.equal(noise[1:], noise_for(tiny, 4)) and not torch.equal(noise[0], noise[1])

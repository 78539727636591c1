"""Each edit equals its dense form over a full loop; and the invariants of the method."""

from __future__ import annotations

import pytest
import torch
from references_p2p import dense_sample, local_blend_mask, refined, replaced

from promptweave import LocalBlend, NoEffect, Refine, Replace, Reweight, SharedStart, Window, noise_for, sample
from promptweave.words import refine_map, replace_map

SOURCE = "a photo of a cat riding a bike"
SWAP = "a photo of a chipmunk riding a bike"  # a swap of one token for several
PHRASE = "a photo of a black cat riding a red bike at night"
STEPS, GUIDANCE = 5, 7.5


def relative(x, y):
    return float((x - y).norm() / y.norm())


def ours(model, prompts, noise, controls, steps=STEPS, guidance=GUIDANCE):
    return sample(model, prompts, noise=noise, steps=steps, guidance=guidance, controls=controls).latents[:, 0]


def dense_edit(new_map, cross, self_steps, factors=None):
    """Section 1.8-1.9 as loops: `cross` steps for all words, `self_steps` for self-attention up to 16x16."""

    def make(step):
        def edit(maps, is_cross):
            if is_cross and step < cross:
                maps[1] = new_map(maps)
                if factors is not None:
                    maps[1] = maps[1] * factors
            elif is_cross and factors is not None:
                maps[1] = maps[1] * factors
            elif not is_cross and step < self_steps:
                maps[1] = maps[0]
            return maps

        return edit

    return make


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["replace", "refine", "reweight"])
def test_edit_equals_its_dense_form(tiny, tiny64, noise64, kind, precision):
    model = tiny64 if precision == torch.float64 else tiny
    noise = noise64.to(precision)
    target = PHRASE if kind == "refine" else SWAP
    words = [model.words(p) for p in (SOURCE, target)]
    factors = None
    if kind == "refine":
        mapper = refine_map(*words)[0]
        controls, new = [Refine(0.6, 0.4)], lambda maps: refined(maps, mapper)
    else:
        matrix = replace_map(*words).numpy()
        controls, new = [Replace(0.6, 0.4)], lambda maps: replaced(maps, matrix)
        if kind == "reweight":
            factors = torch.ones(77, dtype=precision)
            factors[list(words[1].find("bike"))] = 3
            controls.append(Reweight({"bike": 3}))
    got = ours(model, [SOURCE, target], noise, controls)
    want = dense_sample(model, [SOURCE, target], noise, STEPS, GUIDANCE, dense_edit(new, 3, 2, factors))
    plain = ours(model, [SOURCE, target], noise, [])
    # Measured: 4e-15 in double, 2e-6 in single precision; the same sums in another order.
    assert relative(got, want) <= (1e-12 if precision == torch.float64 else 2e-5)
    assert relative(got[1], plain[1]) > 1e-2, "the edit must change something, else this proves nothing"
    assert relative(got[0], plain[0]) <= (1e-12 if precision == torch.float64 else 2e-5), "the source is never edited"


@pytest.mark.parametrize("maps", ["own", "effective"])
def test_local_blend_equals_its_dense_form(tiny64, noise64, maps):
    words = [tiny64.words(p) for p in (SOURCE, SWAP)]
    matrix = replace_map(*words).numpy()
    tokens = [list(words[0].find("cat")), list(words[1].find("chipmunk"))]
    seen = []

    def make(step):
        def edit(m, is_cross):
            before = m.clone()
            m = dense_edit(lambda x: replaced(x, matrix), 3, 2)(step)(m, is_cross)
            if is_cross and m.shape[2] == 256:
                seen.append(before if maps == "own" else m.clone())
            return m

        return edit

    areas = []

    def after(i, z):
        if i >= 1:  # start 0.2 of 5 steps
            mask = local_blend_mask(seen, tokens, 16, 0.5)
            areas.append(float(mask.double().mean()))
            z = torch.stack([z[0], z[0] + mask * (z[1] - z[0])])
        return z

    want = dense_sample(tiny64, [SOURCE, SWAP], noise64, STEPS, GUIDANCE, make, after)
    blend = LocalBlend("chipmunk", threshold=0.5, maps=maps)
    made = sample(
        tiny64, [SOURCE, SWAP], noise=noise64, steps=STEPS, guidance=GUIDANCE, controls=[Replace(0.6, 0.4), blend]
    )
    assert relative(made.latents[:, 0], want) <= 1e-12
    assert made.reports[1]["mask_area"][1] == pytest.approx(areas)
    assert 0 < areas[-1] < 1, "the mask must be a true part of the picture, else this proves nothing"


def test_same_prompt_changes_nothing(tiny64, noise64):
    for control in (Replace(1.0, 1.0), Refine(0.5, 0.2)):
        z = ours(tiny64, [SOURCE, SOURCE], noise64, [control])
        assert relative(z[1], z[0]) < 1e-13  # rows of one batch; no sum is in another order


def test_weight_one_over_an_edit_is_the_edit(tiny64, noise64):
    run = [
        ours(tiny64, [SOURCE, SWAP], noise64, [Replace(), *more])
        for more in ([], [Reweight({"chipmunk": 1.0, "a#1": 1.0000001})])
    ]
    assert relative(run[1], run[0]) < 1e-5


def test_many_targets_at_once_equal_one_at_a_time(tiny64, noise64):
    together = ours(
        tiny64, [SOURCE, SWAP, PHRASE], noise64, [Replace(targets=(1,)), Refine(targets=(2,)), Reweight({"riding": 2})]
    )
    swap = ours(tiny64, [SOURCE, SWAP], noise64, [Replace(), Reweight({"riding": 2})])
    phrase = ours(tiny64, [SOURCE, PHRASE], noise64, [Refine(), Reweight({"riding": 2})])
    assert relative(together[1], swap[1]) < 1e-12
    assert relative(together[2], phrase[1]) < 1e-12


def test_many_images_at_once_equal_one_at_a_time(tiny64):
    noise = noise_for(tiny64, 5, 3).double()
    controls = [Refine(), LocalBlend("cat", threshold=0.6), Reweight({"night": 2})]
    made = sample(tiny64, [SOURCE, PHRASE], noise=noise, steps=3, controls=controls)
    for image in range(3):
        alone = sample(tiny64, [SOURCE, PHRASE], noise=noise[image : image + 1], steps=3, controls=controls)
        assert relative(made.latents[:, image], alone.latents[:, 0]) < 1e-12


def test_without_guidance_only_conditional_rows_run(tiny64, noise64):
    z = ours(tiny64, [SOURCE, SWAP], noise64, [Replace()], guidance=1.0)
    plain = ours(tiny64, [SOURCE, SWAP], noise64, [], guidance=1.0)
    assert relative(z[0], plain[0]) < 1e-12
    assert relative(z[1], plain[1]) > 1e-3


def test_masks_at_the_ends(tiny64, noise64):
    everything, nothing = ((1.0,) * 16,) * 16, ((0.0,) * 16,) * 16
    corner = ((1.0, *nothing[0][1:]), *nothing[1:])
    edit = ours(tiny64, [SOURCE, SWAP], noise64, [Replace()])
    full = ours(tiny64, [SOURCE, SWAP], noise64, [Replace(), LocalBlend("cat", mask=everything, combine="union")])
    least = ours(tiny64, [SOURCE, SWAP], noise64, [Replace(), LocalBlend("cat", mask=corner)])
    assert torch.equal(full, edit)
    differing = (least[1] != least[0]).any(-3).nonzero()
    assert not differing[..., -2:].any()  # the corner at most
    with pytest.raises(NoEffect, match="one that is black"):
        ours(tiny64, [SOURCE, SWAP], noise64, [Replace(), LocalBlend("cat", mask=nothing)])


def test_subtracted_words_leave_the_mask(tiny64, noise64):
    kept, cut = (
        sample(tiny64, [SOURCE, SWAP], noise=noise64, steps=STEPS, controls=[Replace(), b]).reports[1]["mask_area"][1]
        for b in (LocalBlend("chipmunk", threshold=0.1), LocalBlend("chipmunk", "bike", threshold=0.1))
    )
    assert all(after < before for before, after in zip(kept, cut, strict=True))


def test_shared_start_copies_the_source(tiny64, noise64):
    z = ours(tiny64, [SOURCE, SWAP], noise64, [SharedStart(1.0)])
    assert torch.equal(z[1], z[0])


def test_per_word_windows(tiny64, noise64):
    per_word = ours(tiny64, [SOURCE, SWAP], noise64, [Replace({"default": 0.6, "chipmunk": 0.6})])
    assert relative(per_word, ours(tiny64, [SOURCE, SWAP], noise64, [Replace(0.6)])) < 1e-13
    other = ours(tiny64, [SOURCE, SWAP], noise64, [Replace({"default": 0.6, "chipmunk": (0.2, 0.4)})])
    assert relative(other[1], per_word[1]) > 1e-4


def test_other_shapes_than_squares(tiny64):
    noise = torch.randn(1, 4, 10, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = sample(
        tiny64, [SOURCE, SWAP], noise=noise, steps=3, controls=[Replace(), LocalBlend("chipmunk", threshold=0.6)]
    )
    assert made.pictures.shape == (2, 1, 20, 28, 3)
    assert made.run.map_grid == (10, 14)


@pytest.mark.parametrize(
    "control",
    [
        Replace(0.0, 0.0),
        Refine(0.0, 0.1),
        Reweight({"riding": 1.0}),
        Reweight({"riding": 2.0}, window=0.0),
        LocalBlend(()),
        LocalBlend("cat", start=1.0),
        SharedStart(0.0),
    ],
)
def test_an_edit_that_cannot_do_anything_is_an_error(tiny64, noise64, control):
    with pytest.raises(NoEffect, match="Received"):
        ours(tiny64, [SOURCE, SWAP], noise64, [control])


def test_unknown_words_and_targets_are_errors(tiny64, noise64):
    for control in (Reweight({"chipmank": 2}), LocalBlend("chipmank"), Replace({"chipmank": 0.5})):
        with pytest.raises(ValueError, match="Did you mean 'chipmunk'"):
            ours(tiny64, [SOURCE, SWAP], noise64, [control])
    with pytest.raises(ValueError, match="rows 1 to 1"):
        ours(tiny64, [SOURCE, SWAP], noise64, [Replace(targets=(2,))])


def test_targets_are_needed(tiny64, noise64):
    for control in (Replace(), Refine(), Reweight({"cat": 2})):
        with pytest.raises(ValueError, match="acts on targets, and the run has one prompt"):
            ours(tiny64, [SOURCE], noise64, [control])


def test_reference_compat_windows_round_like_the_authors(tiny64):
    words = [tiny64.words(SWAP)]
    from promptweave.words import word_windows

    # methods: 0.8 of 50 steps is 40 in both; 0.99 is 49 for us, 50 for the authors (they count 51).
    for spec, mine, theirs in ((0.2, 10, 10), (0.8, 40, 40), (0.99, 49, 50), (1.0, 50, 50)):
        assert int(word_windows(words, spec, 50)[:, 0, 3].sum()) == mine
        assert int(word_windows(words, spec, 50, reference_compat=True)[:, 0, 3].sum()) == theirs
    with pytest.raises(ValueError, match="0 <= start <= end <= 1"):
        word_windows(words, 1.2, 50)
    assert Window.of((0.2, 0.4)).steps(50) == range(10, 20)

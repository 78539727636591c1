"""`reference_compat` against the authors' arithmetic over a full loop, and more invariants of the method."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references_p2p import dense_sample, published_sample, reference_replace_mapper, refined, replaced
from test_prompt_to_prompt import GUIDANCE, PHRASE, SOURCE, STEPS, SWAP, dense_edit, ours, relative
from tiny import build_tiny

from promptweave import LocalBlend, Refine, Replace, Reweight, edit, load, noise_for, sample
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


def both(model, names):
    return [list(model.words(p).find(n)) for p, n in zip((SOURCE, SWAP), names, strict=True)]


EVERYTHING = list(range(77))
CASES = {  # controls, windows of tokens, window of self-attention, word -> factor, blend
    "swap": ([Replace(0.6, 0.4, reference_compat=True)], [(EVERYTHING, 0, 0.6)], (0, 0.4), {}, None),
    "phrase": ([Refine(0.6, 0.4, reference_compat=True)], [(EVERYTHING, 0, 0.6)], (0, 0.4), {}, None),
    "ranges": (
        [Replace((0.2, 0.8), (0.3, 0.9), reference_compat=True)], [(EVERYTHING, 0.2, 0.8)], (0.3, 0.9), {}, None
    ),
    "words": (
        [Replace({"default_": 0.9, "chipmunk": (0.2, 0.5)}, 0.2, reference_compat=True)],
        [(EVERYTHING, 0, 0.9), ("chipmunk", 0.2, 0.5)], (0, 0.2), {}, None,
    ),
    "weights": (
        [Replace(0.6, 0.4, reference_compat=True), Reweight({"chipmunk": 4, "riding": -1}, 0.6, reference_compat=True)],
        [(EVERYTHING, 0, 0.6)], (0, 0.4), {"chipmunk": 4.0, "riding": -1.0}, None,
    ),
    "weights in windows of words": (
        [
            Refine({"chipmunk": (0.2, 0.9)}, 0.4, reference_compat=True),
            Reweight({"chipmunk": 3}, {"chipmunk": (0.2, 0.9)}, reference_compat=True),
        ],
        [(EVERYTHING, 0, 1), ("chipmunk", 0.2, 0.9)], (0, 0.4), {"chipmunk": 3.0}, None,
    ),
    "blend": (
        [Replace(0.6, 0.4, reference_compat=True),
         LocalBlend(("cat", "chipmunk"), "bike", threshold=0.5, subtract_threshold=0.7, reference_compat=True)],
        [(EVERYTHING, 0, 0.6)], (0, 0.4), {}, (("cat", "chipmunk"), ("bike", "bike"), 0.5, 0.7, 0.2),
    ),
    "blend on a map below zero": (
        [Replace(1.0, 0.4, reference_compat=True), Reweight({"chipmunk": -2}, 1.0, reference_compat=True),
         LocalBlend(("cat", "chipmunk"), threshold=0.6, start=0.4, reference_compat=True)],
        [(EVERYTHING, 0, 1)], (0, 0.4), {"chipmunk": -2.0}, (("cat", "chipmunk"), None, 0.6, 0.3, 0.4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("solver", ["ddim", "pndm"])
@pytest.mark.parametrize("case", CASES)
def test_a_run_is_that_of_the_published_controllers(tokenizer, noise64, solver, case):
    """All that they count are network calls: with PNDM, the notebook's solver, there is one more of them than steps."""
    controls, windows, self_window, weights, blend = CASES[case]
    model = load(build_tiny(tokenizer).to(torch.float64), scheduler=solver)
    words = [model.words(p) for p in (SOURCE, SWAP)]
    windows = [(list(words[1].find(name)) if isinstance(name, str) else name, a, b) for name, a, b in windows]
    if isinstance(controls[0], Refine):
        mapper = refine_map(*words, reference_compat=True)[0]
        new = lambda maps: refined(maps, mapper)  # noqa: E731
    else:
        matrix = reference_replace_mapper(*([list(w.find(n))] for w, n in zip(words, ("cat", "chipmunk"), strict=True)))
        new = lambda maps: replaced(maps, matrix)  # noqa: E731
    factors = torch.ones(77, dtype=torch.float64)
    for name, factor in weights.items():
        factors[list(words[1].find(name))] = factor
    if blend is not None:
        named, without, *numbers = blend
        blend = (both(model, named), without and both(model, without), *numbers)
    want = published_sample(
        model, type(model.sampler).from_config(model.sampler.config), [SOURCE, SWAP], noise64, STEPS, GUIDANCE, new,
        windows, self_window, factors if weights else None, blend,
    )  # fmt: skip
    made = ours(model, [SOURCE, SWAP], noise64, controls)
    assert relative(made, want) <= 1e-12
    plain = ours(model, [SOURCE, SWAP], noise64, [])
    assert relative(made[1], plain[1]) > 1e-2


def test_windows_end_where_floating_point_ends_them(tiny, noise64):
    """0.58 * 50 is a little below 29, and the authors cut it to 28; their cross window is of 51 calls."""
    for compat, steps in ((False, 29), (True, 28)):
        controls = [
            Replace(0.58, 0.58, reference_compat=compat), LocalBlend("chipmunk", start=0.58, reference_compat=compat)
        ]  # fmt: skip
        made = sample(tiny, [SOURCE, SWAP], noise=noise64.float(), steps=50, controls=controls)
        assert made.reports[0]["self_steps"] == steps and made.reports[0]["cross_steps"] == 29
        assert made.reports[1]["latent_steps"] == 50 - steps


def test_the_options_of_an_edit_make_the_published_weights(tiny):
    made = edit(SOURCE, SWAP, model=tiny, steps=5, cross=0.4, weights={"chipmunk": 3}, reference_compat=True)
    assert made.recipe.controls[1] == Reweight({"chipmunk": 3}, 0.4, reference_compat=True)
    assert made.report["controls"][1]["cross_steps"] == 2


def test_a_solver_that_calls_twice_a_step_has_no_published_run(tokenizer, noise64):
    model = load(build_tiny(tokenizer), scheduler="heun")
    for control in (
        Replace(reference_compat=True),
        Reweight({"bike": 2}, reference_compat=True),
        LocalBlend("cat", reference_compat=True),
    ):
        with pytest.raises(ValueError, match="9 calls in 5 steps. Use ddim or pndm"):
            ours(model, [SOURCE, SWAP], noise64.float(), [control])
    model = load(build_tiny(tokenizer), scheduler="pndm")
    with pytest.raises(ValueError, match="cannot blend between the two calls"):
        ours(model, [SOURCE, SWAP], noise64.float(), [LocalBlend("cat", start=0, reference_compat=True)])


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
    """Compares the patterns after the controls to its left with the network's own: largest difference by branch."""

    def bind(self, run):
        class Look(Hooks):
            def __init__(self):
                self.seen: dict[tuple[int, str], dict[str, float]] = {}

            def observe(self, step, site, rows):
                q, k = rows.q[..., :], rows.k
                plain = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)  # [uncond 0, 1, cond 0, 1]
                self.seen[step.index, site.name] = {
                    branch: max(
                        float((rows[branch][row].pattern.dense[0] - plain[2 * place + row]).abs().max())
                        for row in range(2)
                    )
                    for place, branch in enumerate(("uncond", "cond"))
                }

        return Look()


def test_the_unconditional_half_is_never_edited(tiny64, noise64):
    controls = [Replace(1.0, 1.0), Reweight({"chipmunk": -2}), LocalBlend("chipmunk"), _Watch()]
    made = sample(tiny64, [SOURCE, SWAP], noise=noise64, steps=2, guidance=GUIDANCE, controls=controls)
    seen = made.hooks[-1].seen
    assert seen.keys() == {(step, site.name) for step in range(2) for site in tiny64.sites((16, 16))}
    assert max(at["uncond"] for at in seen.values()) <= 1e-12
    assert all(at["cond"] > 1e-4 for (step, _), at in seen.items() if step == 1)  # the other half is at every layer


def test_the_source_does_not_depend_on_controls_or_targets(tiny64, noise64):
    alone = ours(tiny64, [SOURCE], noise64, [])[0]
    for controls in ([Replace(1.0, 1.0)], [Refine(), Reweight({"bike": 5}), LocalBlend("chipmunk")]):
        assert relative(ours(tiny64, [SOURCE, SWAP], noise64, controls)[0], alone) <= 1e-12


def test_noise_is_the_same_for_all_prompts_and_apart_for_seeds(tiny):
    noise = noise_for(tiny, 3, images=2)
    assert torch.equal(noise[1:], noise_for(tiny, 4)) and not torch.equal(noise[0], noise[1])

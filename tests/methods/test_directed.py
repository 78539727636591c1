"""Directed Diffusion: equal to the written-out form, identities, and the tables of masks."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from families import build_sd3, build_sdxl
from PIL import Image
from tiny import build_tiny

import promptweave as pw
from promptweave.apps.cli import main
from promptweave.benchmarks.judging import oracle
from promptweave.benchmarks.measure_place import judge
from promptweave.core.control import NoEffect
from promptweave.core.pattern import Pattern
from promptweave.core.rows import Layout, Rows
from promptweave.core.site import Site
from promptweave.editing.recipe import control_as_dict, control_from_dict
from promptweave.methods.directed_diffusion import bump, cells, factors
from promptweave.sampling.loop import Job
from promptweave.view.boxes import QUADRANTS
from promptweave.world.oracle import Sight

PROMPT = "a photo of a cat riding a bike in the snow"
OTHER = "a black cat next to a red car"
LEFT, RIGHT, ALL = (0, 0, 0.5, 1), (0.5, 0.25, 1, 1), (0, 0, 1, 1)
STEPS = 10


def run(model, prompts, controls, noise=None, **options):
    noise = pw.noise_for(model, 1, 2) if noise is None else noise
    return pw.sample(model, prompts, noise=noise, controls=controls, **{"steps": STEPS, "guidance": 3.0, **options})


def dense(attention, words, regions, grid, level, control):
    """A' entry by entry, as the paper and its code write it. attention [heads, queries, keys]."""
    heads, _, keys = attention.shape
    maps = attention.clone().reshape(heads, *grid, keys)
    compat = control.reference_compat
    behind = [words.places[-1], *words.pads][: control.trailing]
    if compat:
        first = len(words.prompt.split()) + 1
        behind = [token for token in range(first, first + control.trailing) if token < keys]
    mask = torch.ones(*grid, keys, dtype=torch.bool)
    if compat:
        mask[:] = False
    edited = set()
    for name, (left, top, right, bottom) in regions:
        x0, x1, y0, y1 = (int(grid[1 - i // 2] * v) for i, v in enumerate((left, right, top, bottom)))
        for token in {*words.find(name), *behind}:
            if not compat and token not in edited:
                mask[..., token] = False
            for y in range(y0, y1):
                for x in range(x0, x1):
                    height, width = y1 - y0, x1 - x0
                    at_y = (y - y0) * height / (height - 1) if height > 1 else 0.0
                    at_x = (x - x0) * width / (width - 1) if width > 1 else 0.0
                    sy, sx = height / 2, width / 2
                    g = math.exp(-(((at_y - height // 2) / sy) ** 2 + ((at_x - width // 2) / sx) ** 2) / 2)
                    strong = control.strength * level
                    if compat or not mask[y, x, token]:
                        maps[:, y, x, token] *= strong
                    maps[:, y, x, token] += g / (2 * math.pi * sx * sy)
                    mask[y, x, token] = True
            if compat:
                for y in range(grid[0]):
                    for x in range(grid[1]):
                        mask[y, x, token] &= y0 <= y < y1 or x0 <= x < x1
            edited.add(token)
    maps[:, ~mask] *= control.weaken
    return maps.reshape(attention.shape)


def edited_rows(model, regions, grid, step=1, *, prompt=PROMPT, **options):
    """(the control's pattern, dense, and what it makes of values; the plain attention; the control; the run)."""
    control = pw.DirectedDiffusion(regions, share=0.5, **options)
    job = Job([prompt], torch.zeros(1, 4, 16, 16), STEPS)
    bound, _ = job.bind(model)
    hooks = control.bind(bound)
    generator = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(2, 3, n, 6, generator=generator, dtype=torch.float64) for n in (grid[0] * grid[1], 77, 77))
    rows = Rows(q, k, v, Layout(("uncond", "cond"), 1))
    site = Site("here", "cross", "up", 0, 3, grid)
    after = hooks.attention(pw.Step(step, STEPS, 500, 400), site, rows)
    return after, Pattern.of(q[1], k[1]).dense, control, bound


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("trailing", [0, 7, 80])
@pytest.mark.parametrize("boxes", [(LEFT,), (LEFT, RIGHT), ((0, 0, 0.6, 0.6), (0.3, 0.4, 1, 1))])
def test_pattern_is_the_one_written_out(tiny64, compat, trailing, boxes):
    regions = tuple(zip(("cat", "the snow"), boxes, strict=False))
    grid, step = (5, 7), 1
    after, plain, control, bound = edited_rows(tiny64, regions, grid, step, trailing=trailing, reference_compat=compat)
    level = 9 * (1 - step / (STEPS // 2 - 1))
    wanted = dense(plain, bound.words[0], regions, grid, level, control)
    got = after["cond"][0]
    torch.testing.assert_close(got.pattern.dense[0], wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after.evaluate()[1], wanted @ got.v[0], rtol=1e-12, atol=1e-12)
    assert after.evaluate()[0].equal(
        torch.nn.functional.scaled_dot_product_attention(after.q[:1], after.k[:1], after.v[:1])[0]
    )


@pytest.mark.parametrize("step", [3, 4, 5])
def test_the_factor_falls_over_the_steps_of_a_window_that_begins_later(tiny64, monkeypatch, step):
    """l_i is from 9 to 0 over the steps that are edited, of which (0.3, 0.6) of ten has three."""
    monkeypatch.setattr("promptweave.methods.directed_diffusion.bump", lambda height, width: torch.zeros(1))
    control = pw.DirectedDiffusion({"cat": ALL}, share=(0.3, 0.6), strength=1.0, trailing=0)
    made = pw.sample(tiny64, [PROMPT], noise=pw.noise_for(tiny64, 0).double(), steps=10, controls=[control, control])
    assert made.reports[0]["cross_steps"] == 3
    _, (hooks,) = Job([PROMPT], pw.noise_for(tiny64, 0).double(), 10, controls=[control]).bind(tiny64)
    q, k = torch.rand(2, 2, 256, 8).double(), torch.rand(2, 2, 77, 8).double()
    rows = Rows(q, k, k, Layout(("uncond", "cond"), 1))
    site = next(site for site in tiny64.sites((16, 16)) if site.kind == "cross")
    token = made.run.words[0].find("cat")[0]
    edited = hooks.attention(pw.Step(step, 10, 500, 400), site, rows)["cond"][0].pattern.dense
    expected = (9.0, 4.5, 0.0)[step - 3] * rows["cond"][0].pattern.dense[..., token]
    torch.testing.assert_close(edited[..., token], expected)


def test_a_full_box_with_factor_one_and_no_bump_is_the_identity(tiny64, monkeypatch):
    monkeypatch.setattr("promptweave.methods.directed_diffusion.LEVELS", (1.0, 1.0))
    monkeypatch.setattr("promptweave.methods.directed_diffusion.bump", lambda height, width: torch.zeros(1))
    after, plain, *_ = edited_rows(tiny64, {"cat": ALL}, (5, 7), strength=1)
    torch.testing.assert_close(after["cond"][0].pattern.dense[0], plain)


def test_no_affected_step_is_plain(tiny):
    control = pw.DirectedDiffusion({"cat": LEFT}, share=0.3)
    run_, (hooks,) = Job([PROMPT], pw.noise_for(tiny, 0), STEPS, controls=[control]).bind(tiny)
    rows = Rows(
        torch.rand(2, 2, 256, 8), torch.rand(2, 2, 77, 8), torch.rand(2, 2, 77, 8), Layout(("uncond", "cond"), 1)
    )
    site = next(site for site in run_.sites if site.kind == "cross")
    assert hooks.attention(pw.Step(3, STEPS, 500, 400), site, rows) is rows
    assert hooks.attention(pw.Step(2, STEPS, 500, 400), site, rows) is not rows
    with pytest.raises(NoEffect, match="share"):
        run(tiny, [PROMPT], [pw.DirectedDiffusion({"cat": LEFT}, share=0)])


@pytest.mark.parametrize(("side", "total"), [(8, 0.42897), (16, 0.44836), (32, 0.45740)])
def test_sum_of_the_bump(side, total):
    assert float(bump(side, side).sum()) == pytest.approx(total, abs=1e-5)
    assert float(bump(side, side).max()) == pytest.approx(2 / (math.pi * side**2), rel=0.05)


def test_masks_of_tokens_that_two_boxes_share():
    first, second, grid = (0, 0, 0.5, 0.5), (0.5, 0.25, 1, 1), (4, 4)
    union, _ = factors([first, second], grid, 1, 0)
    assert union.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    # of the first box the authors' code keeps what lies in a row or a column of the second
    compat, _ = factors([first, second], grid, 1, 0, reference_compat=True)
    assert compat.tolist() == [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_cells_of_a_box():
    assert cells((0.25, 0, 0.75, 0.5), (4, 8)) == (slice(0, 2), slice(2, 6))
    assert cells((0, 0, 0.2, 1), (4, 4)) is None
    assert factors([(0, 0, 0.2, 1)], (4, 4), 1, 0) is None


def test_mass_outside_a_box_is_weak_and_other_tokens_stay(tiny64):
    after, plain, _, bound = edited_rows(tiny64, {"cat": LEFT}, (4, 6), trailing=3)
    words = bound.words[0]
    moved = {*words.find("cat"), words.places[-1], *words.pads[:2]}
    others = [token for token in range(77) if token not in moved]
    new = after["cond"][0].pattern.dense[0]
    torch.testing.assert_close(new[..., others], plain[..., others])
    outside = [y * 6 + x for y in range(4) for x in range(3, 6)]
    tokens = sorted(moved)
    torch.testing.assert_close(new[:, outside][..., tokens], 0.01 * plain[:, outside][..., tokens])


def test_rows_and_images_are_steered_one_by_one(tiny):
    control = pw.DirectedDiffusion({"cat": LEFT}, share=0.3, prompts=(1,))
    both = run(tiny, [PROMPT, PROMPT, OTHER], [control])
    plain = run(tiny, [PROMPT, OTHER], [])
    torch.testing.assert_close(both.latents[[0, 2]], plain.latents, rtol=1e-4, atol=1e-4)
    assert (both.latents[1] - plain.latents[0]).abs().max() > 1e-3
    everyone = run(tiny, [PROMPT, OTHER], [pw.DirectedDiffusion({"cat": LEFT}, share=0.3)])
    torch.testing.assert_close(everyone.latents[0], both.latents[1], rtol=1e-4, atol=1e-4)
    noise = pw.noise_for(tiny, 1, 2)
    second = run(tiny, [PROMPT], [pw.DirectedDiffusion({"cat": LEFT}, share=0.3)], noise[1:])
    torch.testing.assert_close(second.latents[0, 0], everyone.latents[0, 1], rtol=1e-4, atol=1e-4)
    assert everyone.reports[0] == {"cross_steps": 3, "cross_sites": 7}


@pytest.mark.parametrize("kind", ["bfloat16", "sdxl"])
def test_other_networks(tokenizer, kind):
    pipeline = build_sdxl(tokenizer) if kind == "sdxl" else build_tiny(tokenizer).to(torch.bfloat16)
    model = pw.load(pipeline)
    noise = pw.noise_for(model, 1)
    plain, steered = (run(model, [PROMPT], c, noise) for c in ([], [pw.DirectedDiffusion({"bike": RIGHT})]))
    assert torch.isfinite(steered.latents).all()
    assert (plain.latents - steered.latents).abs().max() > 1e-3


def test_with_a_word_swap(tiny):
    prompts = PROMPT, PROMPT.replace("bike", "car")
    made = run(tiny, prompts, [pw.Replace(), pw.DirectedDiffusion({"car": RIGHT}, prompts=(1,))])
    assert torch.isfinite(made.latents).all()


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (pw.DirectedDiffusion({"cat": (0, 0, 1.2, 1)}), "fractions of the image"),
        (pw.DirectedDiffusion({"cat": (0.5, 0, 0.5, 1)}), "left < right"),
        (pw.DirectedDiffusion({"cat": (0, 0.7, 1, 0.5)}), "top < bottom"),
        (pw.DirectedDiffusion({"dog": LEFT}), "not a word"),
        (pw.DirectedDiffusion((("cat", LEFT), ("cat", RIGHT))), "one box"),
        (pw.DirectedDiffusion({"cat": LEFT}, trailing=-1), "trailing"),
        (pw.DirectedDiffusion({"cat": LEFT}, strength=0), "strength"),
        (pw.DirectedDiffusion({"cat": LEFT}, strength=math.nan), "strength"),
        (pw.DirectedDiffusion({"cat": LEFT}, prompts=(3,)), "rows 0 to 0"),
        (pw.DirectedDiffusion({}), "needs a region"),
        (pw.DirectedDiffusion({"cat": LEFT}, share=0.05), "share=0.05"),
        (pw.DirectedDiffusion({"cat": (0, 0, 0.01, 1)}), "Make it larger"),
    ],
)
def test_bad_parameters(tiny, control, message):
    with pytest.raises(ValueError, match=message):
        run(tiny, [PROMPT], [control])


def test_joint_attention_is_refused(tokenizer):
    with pytest.raises(ValueError, match="joint"):
        run(pw.load(build_sd3(tokenizer)), [PROMPT], [pw.DirectedDiffusion({"cat": LEFT})])


@pytest.mark.parametrize("regions", [{"cat": LEFT}, (("cat", LEFT), ("bike", RIGHT))])
def test_recipe_round_trip(regions):
    control = pw.DirectedDiffusion(regions, trailing=3, prompts=(0,))
    assert control_from_dict(json.loads(json.dumps(control_as_dict(control)))) == control


def test_place(tiny_folder, tmp_path, capsys):
    def call(*arguments):
        main(["place", PROMPT, "--model", str(tiny_folder), "--steps", "4", *arguments])

    with pytest.raises(SystemExit, match="0"):
        call("--region", "cat=0,0,0.5,1", "--region", "a bike=0.5,0.25,1,1", "-o", str(tmp_path / "at"))
    assert "cross steps 2, cross sites 7" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "at").iterdir()} == {
        "steered.png", "plain.png", "comparison.png", "steered.json", "boxes.png",
    }  # fmt: skip
    with pytest.raises(SystemExit, match="0"):
        call("--quadrants", "cat", "-o", str(tmp_path / "quadrants"), "--json")
    given = json.loads(capsys.readouterr().out)
    assert [len(control["regions"]) for control in given["recipe"]["controls"]] == [1, 1, 1, 1]
    with Image.open(tmp_path / "quadrants" / "quadrants.png") as image:
        assert image.width > 5 * 192
    names = {"plain.png", "steered.json", *(f"steered-{name.replace(' ', '-')}.png" for name in QUADRANTS)}
    assert {path.name for path in (tmp_path / "quadrants").iterdir()} == {*names, "comparison.png", "quadrants.png"}
    network = pw.load(str(tiny_folder))
    assert pw.replay(tmp_path / "quadrants" / "steered-upper-right.png", model=network).matches
    with pytest.raises(SystemExit, match="2"):
        main(["replay", str(tmp_path / "quadrants" / "quadrants.png")])
    assert "Make it again: promptweave place" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "takes either boxes or one word"),
        (("--region", "cat=0,0,1,1", "--quadrants", "cat"), "takes either boxes or one word"),
        (("--region", "cat=0,0,1"), "left,top,right,bottom"),
        (("--region", "cat=0,0,1,x"), "takes a number"),
        (("--region", "cat=0,0,2,1"), "fractions of the image"),
        (("--quadrants", "horse"), "not a word"),
    ],
)
def test_place_says_what_it_needs(tiny_folder, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(["place", PROMPT, "--model", str(tiny_folder), "-o", str(tmp_path / "out"), *arguments])
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_measure_judges_boxes():
    region = np.zeros((128, 128), dtype=bool)
    region[10:50, 20:60] = True
    region[120, 120] = True  # a speck
    sight = Sight({"cat": 0.9}, "snow", "photo", {"cat": region}, {"cat": None})
    there, inside, overlap = judge(sight, "cat", (0, 0, 0.5, 0.5))
    assert (there, inside) == (1, 1) and overlap == pytest.approx(1600 / 4096, abs=0.03)
    assert judge(sight, "cat", (0.5, 0.5, 1, 1)) == (1, 0, 0)
    missing = Sight({"cat": 0.1}, "snow", "photo", {"cat": region}, {"cat": None})
    assert judge(missing, "cat", (0, 0, 0.5, 0.5)) == (0, 0, 0)


def test_the_embedded_model_moves_a_thing():
    model, prompt = pw.load("toybox"), "a photo of a dog on the grass"
    controls = [pw.DirectedDiffusion({"dog": box}, prompts=(row,)) for row, box in enumerate((LEFT, (0.5, 0, 1, 1)))]
    made = pw.sample(model, [prompt, prompt], noise=pw.noise_for(model, 3), steps=10, controls=controls)
    left, right = (np.nonzero(sight.regions["dog"])[1].mean() for sight in oracle().look(made.pictures[:, 0]))
    assert right - left > 25  # pixels of 128

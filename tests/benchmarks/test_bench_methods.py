"""What the figures of `bench methods` are made of, on rendered scenes and for a moment on the embedded model."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from promptweave.apps.cli import main
from promptweave.benchmarks import measure_given, measure_masactrl, measure_translate
from promptweave.benchmarks.bench_methods import Measured, means
from promptweave.evaluate.metrics import psnr
from promptweave.models.load import load
from promptweave.sampling.loop import noise_for, sample, sample_jobs
from promptweave.world.caption import caption
from promptweave.world.counterfactuals import Counterfactual, drawn
from promptweave.world.render import render
from promptweave.world.scene import COLOURS, RELATIONS, Scene, Thing

CAT, CAR = Thing("cat", 0.5, 0.9, 0.6), Thing("car", 0.28, 0.88, 0.46, "blue")
ALONE = Scene("grass", "photo", "alone", (CAT,), 7)


def pictures(*scenes: Scene) -> np.ndarray:
    return np.stack([render(scene)[0] for scene in scenes])


def run(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["bench", "methods", *arguments])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_means_are_over_pairs_that_all_edits_share():
    nan = float("nan")
    found = [np.array([[1, 2], [0, 4], [1, 6]]), np.array([[0, 9], [0, nan], [1, 9]]), np.array([[1.0, 4]] * 3)]
    first, second = means("name", ("a", "b"), found)
    assert first == Measured("name", "a", 2 / 3, 1 / 3, 3, 1.0)
    assert second == Measured("name", "b", 3.0, 4.0, 2, 5.0), "no pair in which one edit has no figure"
    assert means("name", ("a",), [np.full((3, 1), nan)]) == []


def test_translations_are_judged():
    """The oracle and the distance on counterfactual pictures: the swap, nothing, and a swap before another backdrop."""
    lion = ALONE.with_(0, noun="lion")
    pair = Counterfactual(0, "test", "object swap", caption(ALONE), caption(lion), ALONE, lion)
    made = pictures(ALONE, lion, ALONE, lion.with_(background="night"))
    success, kept = measure_translate.judge(pair, made).T
    assert success.tolist() == [1, 0, 1]
    assert kept[1] == 60 and kept[0] > 45 > 15 > kept[2], "outside both things the swap changes nothing"
    assert kept[0] > psnr(made[0], made[1]) + 15, "and what it changes is left out"


def test_translations_are_made_side_by_side():
    """Row 1 is free, row 2 under Prompt-to-Prompt, and pix2pix-zero starts from the same source."""
    model, pair = load("toybox"), drawn("object swap", random.Random(0), 0, "test")
    swapped, translated, stronger = sample_jobs(model, measure_translate.jobs_of(model, pair, 3, 2, 2.0))
    alone = sample(model, [pair.source, pair.target], noise=noise_for(model, 3), steps=2).latents
    assert (swapped.latents[:2] - alone).norm() / alone.norm() < 1e-4
    assert (translated.latents[0] - alone[0]).norm() / alone[0].norm() < 1e-4
    for other in (swapped.latents[2], translated.latents[1]):
        assert all((other - row).norm() / row.norm() > 1e-3 for row in alone), "both controls act"
    assert (stronger.latents[1] - alone[0]).norm() > 1.2 * (translated.latents[1] - alone[0]).norm()
    assert set(translated.run.prompts) == {pair.source} and "losses" in translated.reports[0]


def test_changes_for_masactrl():
    rng = random.Random("changes")
    seen = set()
    for _ in range(60):
        change = measure_masactrl.company(rng)
        assert change.noun in change.source and change.noun in change.nouns and len(change.nouns) == 2
        assert all(noun in change.target for noun in change.nouns)
        assert [noun for noun in change.nouns if noun != change.noun][0] not in change.source.split()
        seen |= {word for word in RELATIONS if word in change.target}
        change = measure_masactrl.unsaid(rng)
        assert change.colour and f"{change.colour} {change.noun}" in change.source
        assert not set(COLOURS) & set(change.target.split()) and change.noun in change.target
    assert seen == set(RELATIONS[1:])


def test_looks_are_judged():
    """Of a cat that gets a car: as it is asked for, without the car, in front of the night, and as a dark painting."""
    together = ALONE.with_(relation="next to", things=(CAR, Thing("cat", 0.73, 0.9, 0.46)))
    change = measure_masactrl.Change.of(together, 1, together)
    assert change.noun == "cat" and change.nouns == ("car", "cat") and change.colour is None
    night, painting = together.with_(background="night"), together.with_(style="painting")
    made = pictures(ALONE, together, ALONE, night, painting)
    there, thing, backdrop = measure_masactrl.looks(change, made).T
    assert there.tolist() == [1, 0, 1, 1]
    assert thing[1] == 0 == backdrop[1]
    assert thing[0] < 0.06 and thing[2] < 0.06 < thing[3], "the cat is the same cat by night, but not in paint"
    assert backdrop[0] < 0.1 < 0.2 < backdrop[2], "the sky is another part of it"
    there, thing, backdrop = measure_masactrl.looks(change, pictures(ALONE, together, together.with_(1, noun="dog"))).T
    assert there.tolist() == [1, 0] and np.isnan(thing).all() and np.isnan(backdrop).all(), "not seen in one of them"


def test_colours_are_judged():
    blue = ALONE.with_(things=(Thing("car", 0.5, 0.9, 0.6, "blue"),))
    change = measure_masactrl.Change.of(blue, 0, blue.with_(0, colour=None))
    assert change.colour == "blue" and "blue" not in change.target
    assert measure_masactrl.colour(change, pictures(blue, blue, blue.with_(0, colour="yellow"))).tolist() == [[1], [0]]
    red = blue.with_(0, colour="red")
    assert np.isnan(measure_masactrl.colour(change, pictures(red, blue))).all(), "the source does not have the colour"
    assert np.isnan(measure_masactrl.colour(change, pictures(blue, ALONE))).all(), "the car is lost"


def test_the_command(capsys):
    """Both methods beside Prompt-to-Prompt; in the table a column more."""
    told = json.loads(run(capsys, "translate", "masactrl", "--count", "2", "--steps", "2", "--json"))["figures"]
    found = {figure["what"]: figure for figure in told}
    for what in ("the new thing is there, the old one gone", "all things of the target are there"):
        assert found[what]["count"] == 2
        assert {found[what][key] for key in ("plain", "steered", "beside")} <= {0, 0.5, 1}  # fractions of two pairs
    assert {figure["method"] for figure in told} == {*measure_translate.VARIANTS, "MasaCtrl"}
    assert "Prompt-to-Prompt" in run(capsys, "translate", "--count", "1", "--steps", "2")
    assert "Prompt-to-Prompt" not in run(capsys, "place", "--count", "1", "--steps", "2")


def test_pictures_that_were_given_are_drawn_scenes(capsys):
    rng = random.Random(0)
    scene, other, old, new = measure_given.swap(rng)
    assert old in caption(scene) and new in caption(other) and scene.background == other.background
    recipe = measure_given.recipe(load("toybox"), scene, (caption(other),), 2, 2.0)
    assert recipe.picture is not None and np.array_equal(recipe.picture.pixels(), render(scene)[0])
    said = json.loads(run(capsys, "given", "pnp", "--count", "1", "--steps", "3", "--json"))["figures"]
    known = {(figure["method"], figure["what"]): figure for figure in said}
    source = known["Given pictures, pinned", "PSNR of the source's row to the picture, dB"]
    assert source["steered"] > source["plain"], "a source on its own path is nearer to the picture than one made again"
    layout = known["Plug-and-Play", "correlation of the edges with the picture's"]
    assert layout["plain"] != layout["steered"] != layout["beside"]

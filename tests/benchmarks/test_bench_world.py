"""`bench world` and `bench curves`: what is measured of an edit, and a folder of rows that several runs share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from promptweave.benchmarks import bench_world as world
from promptweave.benchmarks.field_folder import slug
from promptweave.benchmarks.judging import oracle
from promptweave.benchmarks.swept import METHODS, NO_CONTROL, NO_EDIT, TRUE_MASK, methods_of
from promptweave.benchmarks.world_edits import Runs, made_edits, recipe_of
from promptweave.core.control import NoEffect
from promptweave.evaluate.similarity import feature_distance
from promptweave.models.load import load_cached
from promptweave.world.counterfactuals import KINDS, PROMPTED, counterfactuals

STEPS = 2


@pytest.fixture(scope="module")
def fast():
    return load_cached("toybox-fast")


def seen_of(pairs):
    return world.sources(load_cached("toybox-fast"), world.DRAWN, tuple(pairs), world.Settings("none", 1, 1))


def test_the_counterfactual_itself_has_the_best_figures():
    pairs = counterfactuals("tuning", count=7)
    begun = seen_of(pairs)
    right = world.judged(pairs, begun, [pair.wanted for pair in pairs])
    same = world.judged(pairs, begun, [pair.drawn for pair in pairs])
    for pair, one, two in zip(pairs, right, same, strict=True):
        assert (one["success"], two["success"]) == (1, 0), pair.name
        assert one["psnr_goal"] == 60 and one["ssim_goal"] == pytest.approx(1) and one["distance_goal"] == 0
        assert two["psnr_goal"] < 30 and two["distance_goal"] > 0.001
        assert two["structure_oracle"] == 0 < one["structure_oracle"]
        if pair.kind == "style change":
            assert np.isnan(one["psnr_outside"])
        elif pair.scene.style != "painting":
            assert one["psnr_outside"] > 50 and two["psnr_outside"] == 60
    assert set(right[0]) == set(world.FIGURES)
    assert world.judged(pairs[:2], begun[:2], [None, pairs[1].wanted])[0] == {}


def test_the_features_tell_how_far_an_image_is():
    pair = counterfactuals("tuning", kinds=("object swap",), count=1)[0]
    rng = np.random.default_rng(0)
    worse = [pair.wanted, *(np.clip(pair.wanted + rng.normal(0, s, pair.wanted.shape), 0, 255) for s in (8, 24, 60))]
    looks = oracle().look_closely(np.stack(worse).astype(np.uint8))
    distances = [feature_distance(looks[0][1], features) for _, features in looks]
    assert distances == sorted(distances) and distances[0] == 0


def test_outside_a_generated_source_is_what_the_oracle_says():
    swap, background, style = (counterfactuals("tuning", kinds=(k,), count=1)[0] for k in (PROMPTED[0], *PROMPTED[2:4]))
    for pair in (swap, background, style):
        before, after = oracle().look(np.stack([pair.drawn, pair.wanted]))
        free = world._unchanged(pair, before, after)
        inside = np.any([before.regions[thing.noun] for thing in pair.old or pair.scene.things], 0)
        assert (free & inside).any() == (pair is background)
    assert not free.any()


def test_rows_are_made_once_and_kept(fast, tmp_path, monkeypatch):
    asked = {"count": 2, "steps": STEPS, "split": "tuning", "kinds": ("object swap", "style change"), "batch": 2}
    told = list[int]()
    names = (NO_EDIT, NO_CONTROL, "Prompt-to-Prompt, blend")
    rows = world.bench_world(fast, tmp_path, names, **asked, progress=told.append)
    assert told == [2, 2, 2] and len(rows) == 6
    found = {(row.method, row.category): row for row in rows}
    assert {row.benchmark for row in rows} == {"world, drawn"} and {row.inversion for row in rows} == {"direct"}
    assert found[NO_EDIT, "object swap"].figures["success"] == 0
    assert found[NO_EDIT, "object swap"].figures["psnr_outside"] > 30
    assert found["Prompt-to-Prompt, blend", "object swap"].strength == 0.3
    failed = found["Prompt-to-Prompt, blend", "style change"]
    assert "no word" in failed.failure and failed.figures == {} and np.isnan(failed.seconds)

    def never(*_):
        raise AssertionError("made again")

    with monkeypatch.context() as patch:
        patch.setattr(world, "made_edits", never)
        assert world.bench_world(fast, tmp_path, names, **asked) == rows
    file = next(path for path in tmp_path.rglob("rows/*.jsonl") if "no-edit" in path.name)
    file.unlink()  # as if the run had been killed before it was written
    again = world.bench_world(fast, tmp_path, names, **asked)
    assert [(row.method, row.pair, dict(row.figures)) for row in again if row.method == NO_EDIT] == [
        (row.method, row.pair, dict(row.figures)) for row in rows if row.method == NO_EDIT
    ]
    with pytest.raises(FileExistsError, match="has a run with steps|holds a run with steps"):
        world.bench_world(fast, tmp_path, names, **{**asked, "steps": STEPS + 1})


def test_a_part_that_another_process_makes_is_left_to_it(fast, tmp_path):
    from filelock import FileLock

    asked = {"count": 1, "steps": STEPS, "kinds": ("object swap",), "split": "tuning"}
    rows = world.bench_world(fast, tmp_path, (NO_EDIT,), **asked)
    file = next(tmp_path.rglob("rows/*.jsonl"))
    run = file.parents[1]
    file.rename(run / "kept")
    lock = FileLock(run / "locks" / f"{slug(file.stem)}.lock")
    with lock, pytest.raises(FileNotFoundError, match="has no rows"):
        world.bench_world(fast, tmp_path, (NO_EDIT,), **asked)
    (run / "kept").rename(file)
    assert world.read_rows(tmp_path) == rows


def test_a_generated_source_needs_no_inversion_and_is_given_where_one_is_the_method(fast, tmp_path):
    names = (NO_EDIT, "InfEdit", TRUE_MASK)
    rows = world.bench_world(
        fast, tmp_path, names, count=1, steps=STEPS, sources=("generated",), kinds=("object swap",), split="tuning"
    )
    found = {row.method: row for row in rows}
    assert set(found) == {NO_EDIT, "InfEdit"}  # the true region of a generated image is not known
    assert found[NO_EDIT].inversion == "" and found["InfEdit"].inversion.startswith("infedit")
    assert found[NO_EDIT].figures["psnr_outside"] == 60 and "psnr_goal" not in found[NO_EDIT].figures
    with pytest.raises(ValueError, match="Sources are drawn and generated. Received 'made'"):
        world.bench_world(fast, tmp_path, names, sources=("made",))


def test_methods_are_those_of_the_model(fast):
    assert "TurboEdit" in {m.name for m in methods_of(fast, 8, 1)}
    assert not {"TurboEdit", "FlowEdit", "SEGA"} & {m.name for m in methods_of(fast, 20, 1)}
    assert "SEGA" in {m.name for m in methods_of(fast, 20, 3)}
    with pytest.raises(ValueError, match="FlowEdit cannot edit with toybox-fast in 8 steps"):
        methods_of(fast, 8, 1, ("FlowEdit",))
    with pytest.raises(ValueError, match="Methods that can be measured: no edit.*Received Nothing"):
        methods_of(fast, 8, 1, ("Nothing",))


def possible(model, method, pair, value):
    try:
        return method.make(model, pair, value)
    except NoEffect:
        return None


@pytest.mark.parametrize("name", ["toybox", "toybox-dit"])
def test_every_method_can_be_set_up_for_every_kind_and_value(name):
    model = load_cached(name)
    pairs = counterfactuals("tuning", count=7)
    assert {pair.kind for pair in pairs} == set(PROMPTED) < set(KINDS)
    for method in methods_of(model, 10, 3):
        assert method.usual in method.all_values and method.settings(method.usual) is not None
        able = [pair for pair in pairs[:: 3 if method.masked else 1] if possible(model, method, pair, method.usual)]
        assert len(able) >= 3, method.name
        for value in method.all_values[:: len(method.all_values) - 1 or 1]:
            setup = possible(model, method, able[0], value)
            assert setup
            recipe_of(model, able[0], able[0].drawn, setup, Runs(10, 3, 0, given=False)).check()


@pytest.mark.parametrize(
    ("name", "method", "values"),
    [
        ("toybox-fast", "Prompt-to-Prompt, blend", (0.1, 0.8)),
        ("toybox-fast", "MasaCtrl", (0.0, 0.6)),
        ("toybox-dit", "Consist", (0.0, 1.0)),
    ],
)
def test_strengths_that_share_a_run_are_what_each_is_alone(name, method, values):
    """The source's rows and the inversion are computed once, which changes nothing."""
    model, pairs, runs = load_cached(name), counterfactuals("tuning", count=1), Runs(2, 1, 0, True)
    images = [pair.drawn for pair in pairs]
    asked = METHODS[method]
    assert asked.together
    (shared,) = made_edits(model, asked, (*values, 7.0), pairs, images, runs)
    (alone,) = made_edits(model, replace(asked, together=False), values, pairs, images, runs)
    for value in values:
        assert np.abs(shared[value].image.astype(int) - alone[value].image).max() <= 1
    assert np.abs(alone[values[0]].image.astype(int) - alone[values[1]].image).max() > 1
    assert shared[7.0].image is None and "7" in shared[7.0].failure  # one that fails takes no other with it


def test_more_strengths_join_those_that_a_folder_has(fast, tmp_path, monkeypatch):
    asked = {"count": 1, "steps": STEPS, "kinds": ("object swap",), "split": "tuning"}
    world.bench_world(fast, tmp_path, ("InfEdit",), **asked)
    made = list[tuple[float, ...]]()

    def watched(model, method, values, *rest):
        made.append(tuple(values))
        return made_edits(model, method, values, *rest)

    monkeypatch.setattr(world, "made_edits", watched)
    rows = world.bench_world(fast, tmp_path, ("InfEdit",), sweep=True, **asked)
    assert made == [METHODS["InfEdit"].all_values[1:]]  # all but the usual one, 0
    assert sorted(row.strength for row in rows) == list(METHODS["InfEdit"].all_values)

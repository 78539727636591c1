"""Every public function, given a wrong type for each of its parameters, answers with a sentence."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

import promptweave as pw
from promptweave.core.typed import fits, hints_of

S, T = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
THINGS = [
    None,
    True,
    3,
    -1,
    2.5,
    "x",
    b"x",
    [],
    [T],
    (1, 2, 3),
    {"a": 1},
    {1},
    object(),
    np.zeros(3),
    torch.zeros(2),
    len,
]
FUNCTIONS = sorted(name for name in dir(pw) if inspect.isfunction(getattr(pw, name)) and not name.startswith("_"))


@pytest.fixture(scope="module")
def calls(tiny, tmp_path_factory):
    """Arguments of a right call, by function."""
    path = tmp_path_factory.mktemp("types")
    made = pw.edit(S, T, model=tiny, steps=1, maps=True, cross=1.0, self_attention=1.0)
    saved = made.save(path / "run")[0].with_name("edit.png")
    seen = pw.look(S, model=tiny, steps=1, steps_shown=(0,))
    rows = pw.statistics(seen.by_step)
    run = {"model": tiny, "steps": 1}
    image = np.zeros((32, 32, 3), np.uint8)
    return {
        "caption": ((image,), {}), "inpaint": ((image, T), {"mask": np.ones((32, 32)), **run}), "net2net": ((), {}),
        "perceive": ((image,), {}), "segment": ((image, ["cat"]), {"model": tiny}),
        "edit": ((S, T), run), "generate": ((S,), run), "record": ((S,), run), "look": ((S,), run),
        "word_maps": ((S,), run), "sweep": ((S, T), run), "find": ((S, T), run), "replay": ((saved,), {}),
        "run": ((made.recipe, tiny), {}), "run_many": (([made.recipe], tiny), {}), "edit_maps": ((made,), {}),
        "html_report": ((made,), {}), "write_report": ((made, path / "report.html"), {}), "load": ((), {}),
        "statistics": ((seen.by_step,), {}), "write_statistics": ((rows, path / "rows.csv"), {}),
        "benchmark": ((path,), {"model": tiny}), "run_report": ((path,), {}), "write_run_report": ((path,), {}),
        "invert": ((S, np.zeros((32, 32, 3), np.uint8)), run), "read_mask": (([[0.0, 1.0]],), {}),
        "noise_for": ((tiny, 0), {}), "sample": ((tiny, [S]), {"noise": pw.noise_for(tiny, 0), "steps": 1}),
    }  # fmt: skip


def test_every_public_function_is_called(calls):
    assert set(calls) == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_wrong_type_is_a_sentence(name, calls):
    function = getattr(pw, name)
    given, named = calls[name]
    hints = hints_of(function.__wrapped__)
    parameters = inspect.signature(function).parameters
    positional = [key for key, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    for key, one in parameters.items():
        if one.kind is one.VAR_KEYWORD:
            continue
        for thing in THINGS:
            if fits(thing, hints[key]):
                continue
            if one.kind is one.VAR_POSITIONAL:
                arguments, more = (*given[: len(positional)], thing), named
            elif key in positional and positional.index(key) < len(given):
                arguments = list(given)
                arguments[positional.index(key)], more = thing, named
            else:
                arguments, more = given, {**named, key: thing}
            with pytest.raises(TypeError, match=rf"^{name} takes .* as {key}\. Received "):
                function(*arguments, **more)


def test_options_of_wrong_types_are_sentences(tiny):
    for name in ("seed", "images", "steps", "guidance", "size", "negative", "truncate", "cross", "weights", "kind"):
        for thing in THINGS[4:]:
            try:
                pw.edit(S, T, model=tiny, **{"steps": 1, name: thing})
            except (ValueError, TypeError) as error:
                assert "object has no attribute" not in str(error) and len(str(error)) > 20


def test_targets_in_a_list_and_pipelines_say_the_cure(tiny):
    with pytest.raises(TypeError, match=r"edit takes text as targets.*one by one: edit\(\.\.\., \*targets\)"):
        pw.edit(S, [T], model=tiny)
    with pytest.raises(TypeError, match=r"Load it first: edit\(\.\.\., model=promptweave\.load\(pipeline\)\)"):
        pw.edit(S, T, model=tiny.pipeline)
    with pytest.raises(TypeError, match=r"sample takes a model as model.*promptweave\.load\('toybox'\)"):
        pw.sample("toybox", [S], noise=pw.noise_for(tiny, 0))


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70, True, 1.5])
def test_seeds_have_63_bits(seed, tiny):
    for call in (
        lambda: pw.edit(S, T, model=tiny, steps=1, seed=seed), lambda: pw.noise_for(tiny, seed),
        lambda: pw.sample(tiny, [S], noise=pw.noise_for(tiny, 0), steps=1, seed=seed),
        lambda: pw.run(pw.Recipe(S, seed=seed, steps=1), tiny),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match="seed"):
            call()
    with pytest.raises(ValueError, match="seed must be a whole number from 0"):
        pw.generate(S, model=tiny, steps=1, seed=2**63 - 1, images=2)
    assert pw.generate(S, model=tiny, steps=1, seed=2**63 - 1).sample.latents.isfinite().all()


@pytest.mark.parametrize("place", ["https://example.org/a.png", "http:/example.org/a.png", "s3://bucket/a.png"])
def test_addresses_are_not_fetched(place, tiny):
    with pytest.raises(ValueError, match="Addresses are not fetched.*://.*Download"):
        pw.edit(S, T, model=tiny, image=place)

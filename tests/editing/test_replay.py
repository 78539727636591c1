"""Files of every kind replay in the passes in which they were made, bit for bit: compared as latents, not as pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

import promptweave as pw
from promptweave.apps.web.session import Session
from promptweave.apps.web.settings import Form
from promptweave.apps.web.studio import Studio
from promptweave.editing.computed import Computed
from promptweave.editing.recipe import KEY, BrokenRecipe, versions
from promptweave.editing.replay import outcome, recomputed, replay
from promptweave.editing.stored import read_record, read_stored

SOURCE, TARGET, THIRD = (f"a photo of a {word} riding a bike" for word in ("cat", "dog", "lion"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    return path


def made(kind: str, model, photo: Path, folder: Path) -> list[pw.Result]:
    """The results whose files are replayed."""
    options = {"model": model, "steps": 2, "seed": 3}
    edit = lambda *given, **more: pw.edit(*given, **options, **more)  # noqa: E731
    if kind == "recording":
        recording = pw.record(SOURCE, **options)
        first = pw.edit(recording, TARGET, model=model)
        chained = pw.edit(pw.record(first, model=model), THIRD, model=model, compare=True)
        loaded = pw.Recording.load(recording.save(folder / "r.safetensors"))
        again = pw.edit(loaded, TARGET, model=model)
        assert torch.equal(again.sample.latents, first.sample.latents)
        return [first, chained, again]
    if kind == "inverted":
        inverted = pw.invert(SOURCE, image=photo, inversion="renoise:rounds=1", **options)
        loaded = pw.InvertedImage.load(inverted.save(folder / "i.safetensors"))
        recorded = pw.record(SOURCE, image=photo, inversion="renoise:rounds=1", keep_original=True, **options)
        return [pw.edit(loaded, TARGET, model=model), pw.edit(recorded, TARGET, model=model)]
    if kind == "jobs":
        recipes = [
            edit(SOURCE, TARGET).recipe,
            edit(THIRD, SOURCE, TARGET).recipe,
            pw.generate(TARGET, **options).recipe,
        ]
        return pw.run_many([*recipes, pw.Recipe(SOURCE, steps=1, model="tiny")], model, compare=True)
    if kind == "sweep":
        cells = pw.sweep(SOURCE, TARGET, columns=("cross", (0.0, 0.5)), rows=("self_attention", (0.0, 1.0)), **options)
        return [cell for row in cells.cells for cell in row][:2]
    if kind == "page":
        session = Session(Studio([model]))
        session.generate(SOURCE, 3, 2)
        nodes = [session.shown, session.edit(Form(TARGET, blend=("dog",)))]
        session.further()
        nodes.append(session.edit(Form(THIRD)))
        session.open(photo, SOURCE, 0, 2)
        return [node.result for node in (*nodes, session.edit(Form(TARGET)))]
    return {
        "edit": lambda: [edit(SOURCE, TARGET, compare=True, images=2), edit(SOURCE, TARGET, THIRD, maps=True)],
        "generate": lambda: [pw.generate(SOURCE, **options), pw.generate(SOURCE, maps=True, **options)],
        "given": lambda: [edit(SOURCE, TARGET, image=photo, keep_original=True, compare=True)],
        "inpaint": lambda: [pw.inpaint(photo, TARGET, mask=((1.0, 0.0),), **options)],
    }[kind]()


@pytest.mark.parametrize(
    "kind", ["edit", "generate", "given", "inverted", "inpaint", "recording", "jobs", "sweep", "page"]
)
def test_files_replay_bit_for_bit(kind, tiny, photo, tmp_path):
    """Those of the page and of a job are restored on the page, too."""
    path = tmp_path / "saved.png"
    for number, result in enumerate(made(kind, tiny, photo, tmp_path)):
        row = min(1, len(result.recipe.targets))
        result.save_picture(path, row, 0)
        assert read_stored(path).computed == result.computed
        if kind != "page" or number == 0:
            again = replay(path, model=tiny)
            assert again.matches and again.said == "The pixels match." and again.close
            assert torch.equal(again.result.sample.latents, result.sample.latents)
            assert again.result.computed == replace(result.computed, plain=None)
        if kind == "page" or (kind, number) == ("jobs", 0):
            node, said = Session(Studio([tiny])).open(path, "", 0, 1)
            assert said == "Restored: the pixels match." and node.recipe == result.recipe
            assert torch.equal(node.result.sample.latents, result.sample.latents) and node.row == row


def test_the_comparison_of_a_run_replays_whole(tiny, tmp_path):
    for compare in (True, False):
        result = pw.edit(SOURCE, TARGET, model=tiny, steps=2, compare=compare)
        result.save(tmp_path / str(compare))
        again = replay(tmp_path / str(compare) / "comparison.png", model=tiny)
        assert again.matches and again.picture.size == result.comparison().size


def test_small_differences_are_rounding_and_versions_are_named_only_if_they_differ(tiny, tmp_path):
    result = pw.generate(SOURCE, model=tiny, steps=2)
    result.save_picture(tmp_path / "made.png", 0, 0)

    def altered(by: int, **record):
        pixels = np.asarray(result.source).astype(int)
        pixels[3, 4, 0] += by if pixels[3, 4, 0] < 128 else -by
        info = PngImagePlugin.PngInfo()
        text = read_record(tmp_path / "made.png")
        info.add_itxt(KEY, json.dumps({**text, **record}))
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "altered.png", pnginfo=info)
        return tmp_path / "altered.png"

    again = replay(altered(1), model=tiny)
    assert again.close and not again.matches and not again.notes
    assert again.said == "The pixels match within 1/255: 0.03% of the values are rounded differently."
    _, said = Session(Studio([tiny])).open(altered(1), "", 0, 1)
    assert said == "Restored: the pixels match within 1/255: 0.03% of the values are rounded differently."
    again = replay(altered(40, versions={**versions(), "torch": "0.1"}, machine={"the device": "abacus"}), model=tiny)
    assert (
        not again.close
        and "differ by up to 40/255, in 0.03% of the values. Since it was made, torch was 0.1," in again.said
    )
    assert "the device was abacus, is cpu" in again.said
    assert outcome(3, 0.5, ()) == "The pixels differ by up to 3/255, in 50.00% of the values."


@pytest.mark.parametrize(
    "computed",
    [
        {"beside": [[1, [[10**9, 1]], [], True]]},
        {"beside": [[1, [[3, 2]], [], True]]},
        {"beside": [[0, [], [], True]]},
        {"prompts": 10**6},
        {"watched": "yes"},
        {"recording": 3},
        [],
    ],
)
def test_what_a_file_says_of_its_passes_is_checked(computed, tiny, tmp_path):
    result = pw.generate(SOURCE, model=tiny, steps=1)
    result.record["computed"] = computed
    result.save_picture(tmp_path / "made.png", 0, 0)
    with pytest.raises(BrokenRecipe, match="computed"):
        read_stored(tmp_path / "made.png")


def test_a_long_chain_of_recordings_is_refused():
    values: dict = {}
    for _ in range(200):
        values = {"recording": values}
    with pytest.raises(ValueError, match="chain of at most 100"):
        Computed.from_dict(values)


def test_a_run_alone_has_nothing_beside_it(tiny):
    result = pw.edit(SOURCE, TARGET, model=tiny, steps=2)
    assert result.computed == Computed() and result.computed.as_dict() == {}
    assert recomputed(result.recipe, tiny, result.computed).computed == Computed()

"""Recipes, records and recordings are foreign data: damaged ones end in BrokenRecipe, and nothing is touched."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace

import mutations
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import safe_open
from safetensors.torch import save_file
from test_own_controls import CONTROLS, example

import promptweave as pw
from promptweave.editing.json_text import read_json
from promptweave.editing.picture import Picture
from promptweave.editing.plan import bind, check_lengths
from promptweave.editing.recipe import CHAIN, KEY, BrokenRecipe, Recipe
from promptweave.editing.stored import read_record, read_stored

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
PLAIN = Recipe(SOURCE, (TARGET,), (pw.Replace(),), steps=5)
OPENED: list[str] = []  # by the system, while a test listens
LISTENS: list[bool] = []


def hear(event: str, arguments: tuple[object, ...]) -> None:
    if LISTENS and (event in ("open", "os.listdir") or event.startswith(("socket.", "subprocess.", "os.system"))):
        OPENED.append(f"{event} {arguments[0]}")


sys.addaudithook(hear)


def record(recipe: Recipe) -> dict:
    place = {"prompt": len(recipe.targets), "image": 0}
    made = {"model": {"name": "toybox", "hash": "x"}, "versions": {"torch": "2.6"}, "picture": place}
    return {"format": 1, "recipe": recipe.as_dict(), **made}


def records() -> list[dict]:
    """One for each control, one with an input image, and a chain of edits."""
    picture = Picture.of(Image.new("RGB", (32, 32), "red"), (32, 32))
    recipes = [replace(PLAIN, controls=(example(kind),), size=(32, 32)) for kind in CONTROLS]
    recipes += [
        replace(PLAIN, picture=picture),
        replace(PLAIN, source=TARGET, targets=(SOURCE,), base=PLAIN, base_row=1),
    ]
    return [record(recipe) for recipe in recipes]


def png(path, text: str):
    info = PngInfo()
    info.add_itxt(KEY, text)
    Image.new("RGB", (32, 32)).save(path, pnginfo=info)
    return path


def test_mutated_records_end_in_one_error_and_touch_nothing(tiny, tmp_path):
    draw, known, outcomes = random.Random(0), records(), {"fine": 0, "broken": 0}
    for _ in range(350):
        whole, kind = draw.choice(known), draw.randrange(6)
        text = mutations.damaged(whole, draw)
        if kind == 0:
            path = png(tmp_path / "run.png", json.dumps(whole))
            path.write_bytes(mutations.flipped(path.read_bytes(), draw))
        elif kind == 1:
            path = png(tmp_path / "run.png", text)
        else:
            path = tmp_path / "run.json"
            path.write_bytes(text.encode() if kind > 2 else mutations.flipped(text.encode(), draw))
        OPENED.clear()
        LISTENS.append(True)
        try:
            recipe = (
                read_stored(path).recipe if path.suffix == ".png" else Recipe.from_dict(read_record(path)["recipe"])
            )
        except BrokenRecipe as error:
            outcomes["broken"] += 1
            assert str(error).rstrip().endswith((".", "?")) and len(str(error)) < 1500, str(error)
            continue
        except KeyError as error:
            assert path.suffix == ".json" and error.args == ("recipe",)  # ours, above
            continue
        finally:
            LISTENS.clear()
            python = tuple(f"open {folder}" for folder in (path, sys.prefix, sys.base_prefix))  # modules, as ever
            touched = [what for what in OPENED if not what.startswith(python)]
            assert not touched, touched
        outcomes["fine"] += 1
        try:
            check_lengths(recipe, tiny)
            bind(recipe, tiny)
        except ValueError as error:
            assert type(error) is ValueError or type(error).__module__.startswith("promptweave."), repr(error)
    assert outcomes["broken"] > 150 and outcomes["fine"] > 10


WRONG = {
    ("seed",): ("1", "seed must be a whole number. Received '1'"),
    ("steps",): (10**30, "steps must be a whole number"),
    ("guidance",): (float("nan"), "guidance must be a number, finite"),
    ("size",): ([32], "size must be 2 values"),
    ("images",): (10**9, "images must be at most 10000"),
    ("base", "size"): ([2**40, 2**40], "size must be at most .* pixels"),
    ("targets",): ("a dog", "targets must be a list"),
    ("truncate",): (1, "truncate must be true or false"),
    ("controls",): ({}, "controls must be a list"),
    ("controls", 0): ("Replace", "A control is a JSON object"),
    ("controls", 0, "control"): (3, '"control" of a control must be text'),
    ("controls", 0, "class"): (["os"], '"class" of a control must be text'),
    ("controls", 0, "cross"): ({"cat": [0, 2]}, "Replace.cross"),
    ("controls", 0, "targets"): ("1", "Replace.targets must be"),
    ("inversion",): ("magic", "There is no inversion 'magic'"),
    ("picture",): ("AAAA", "input image stored in the recipe cannot be read"),
    ("base",): ([], "A recipe is a JSON object"),
    ("base_row",): (1.5, "base_row must be a whole number"),
    ("chunks",): (None, "chunks must be a whole number"),
    ("sede",): (3, "no field 'sede'. Did you mean seed?"),
}  # fmt: skip


@pytest.mark.parametrize("place", WRONG, ids=lambda place: ".".join(map(str, place)))
def test_the_field_that_is_wrong_is_named(place):
    value, said = WRONG[place]
    values = json.loads(json.dumps(PLAIN.as_dict()))
    values["base"] = dict(values) if "base" in place and len(place) > 1 else None
    inside = values
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    with pytest.raises(BrokenRecipe, match=said):
        Recipe.from_dict(values)


def test_fields_that_do_not_fit_together():
    chained = replace(PLAIN, base=PLAIN, base_row=1).as_dict()
    for changes, said in (({"base_row": 2}, "base_row is a row"), ({"steps": 6}, "has its steps, 5. Received 6")):
        with pytest.raises(BrokenRecipe, match=said):
            Recipe.from_dict({**chained, **changes})
    for _ in range(CHAIN):
        chained = {**PLAIN.as_dict(), "base": chained, "base_row": 1}
    with pytest.raises(BrokenRecipe, match=f"at most {CHAIN} edits"):
        Recipe.from_dict(chained)
    lacking = PLAIN.as_dict()
    del lacking["seed"], lacking["model"]
    with pytest.raises(BrokenRecipe, match="lacks seed, model"):
        Recipe.from_dict(lacking)


def test_a_file_names_no_model_that_nobody_else_has_named(tmp_path, monkeypatch):
    """Neither a folder, whose files would be read, nor a hub id, which would be asked for over the network."""
    monkeypatch.setattr("promptweave.editing.own_model.load_cached", lambda *given: pytest.fail(f"loads {given}"))
    for name in ("someone/model", str(tmp_path), "/etc/model.safetensors"):
        path = png(tmp_path / "run.png", json.dumps(record(replace(PLAIN, model=name))))
        with pytest.raises(BrokenRecipe, match=f"If you trust that model, name it: model='{name}'"):
            pw.replay(path)


def test_a_model_that_is_named_reads_prompts_as_the_recipe_says(tmp_path, monkeypatch):
    asked: list[tuple] = []

    def load(*given):
        asked.append(given)
        raise InterruptedError

    monkeypatch.setattr("promptweave.editing.own_model.load_cached", load)
    recipe = replace(PLAIN, model="someone/model", scheduler="euler", chunks=2, prompt_weights=True)
    path = png(tmp_path / "run.png", json.dumps(record(recipe)))
    with pytest.raises(InterruptedError):
        pw.replay(path, model="someone/model")
    assert asked == [("someone/model", "euler", 2, True)]


def test_headers_of_recordings(tiny, tmp_path):
    path = pw.record(SOURCE, model=tiny, steps=2).save(tmp_path / "run.safetensors")
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["promptweave"])
    draw, broken = random.Random(1), 0
    for count in range(120):
        if count % 4:
            save_file(tensors, tmp_path / "bad.safetensors", {"promptweave": mutations.damaged(header, draw)})
        else:
            (tmp_path / "bad.safetensors").write_bytes(mutations.flipped(path.read_bytes(), draw))
        try:
            found = pw.Recording.load(tmp_path / "bad.safetensors")
        except BrokenRecipe:
            broken += 1
            continue
        try:
            found.check(tiny)
        except ValueError as error:
            assert "edited with the model" in str(error) or "damaged" in str(error)
    assert broken > 60
    for name, other in (("path", tensors["path"][1:]), ("pictures", tensors["pictures"].float()), ("t0", None)):
        changed = {**tensors, name: other}
        save_file({k: v for k, v in changed.items() if v is not None}, path, {"promptweave": json.dumps(header)})
        with pytest.raises(BrokenRecipe, match="is damaged"):
            pw.Recording.load(path)
    save_file({**tensors, "t0": torch.zeros(1, 1, 3, 5)}, path, {"promptweave": json.dumps(header)})
    with pytest.raises(BrokenRecipe, match="do not belong together"):
        pw.Recording.load(path)
    save_file({**tensors, "t0": tensors["t0"][:, :, 1:].contiguous()}, path, {"promptweave": json.dumps(header)})
    with pytest.raises(BrokenRecipe, match="not those of its model"):
        pw.edit(pw.Recording.load(path), TARGET, model=tiny)


def test_json_that_python_would_let_pass():
    assert read_json('\ufeff{"a": [1, 2.5]}') == {"a": [1, 2.5]} == read_json(b'\xef\xbb\xbf{"a": [1, 2.5]}')
    for text, said in (
        ('{"a": 1, "a": 2}', "'a' stands there twice"), ("[" * 99_999, "nested too deeply"), ("1" * 5000, "5000"),
        ("{", "not JSON"), (b"\xff\xfe{\x00}\x00", "UTF-16"), (b'"\xe9"', "byte 2 is 0xe9"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            read_json(text)

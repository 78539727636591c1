"""Controls of one's own, and those with required fields: saved, replayed, reported; nothing is imported unasked."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import promptweave as pw
import promptweave.methods as methods
from promptweave.apps.web.uploads import read_upload
from promptweave.core.registry import KNOWN, path_of
from promptweave.editing.recipe import KEY, BrokenRecipe, Recipe, control_as_dict, control_from_dict
from promptweave.editing.result import read_record

SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"
MODULE = """
from dataclasses import dataclass
from pathlib import Path

import promptweave as pw

Path(__file__).with_suffix(".imported").touch()


@dataclass(frozen=True)
class Louder(pw.Control):
    word: str
    factor: int | float = 3.0
    span: pw.Window = pw.Window(0, 0.5)

    def bind(self, run):
        return pw.Reweight({self.word: self.factor}, self.span).bind(run)
"""
EXAMPLES = {
    "AttendAndExcite": {"words": ("photo", "bike"), "iterations": 1}, "Consist": {"words": ("cat",)},
    "DirectedDiffusion": {"regions": {"bike": (0, 0, 0.5, 0.5)}}, "SharedStart": {"share": 0.5},
    "KVEdit": {"mask": ((1.0, 0.0), (0.0, 1.0)), "reinitialise": True},
    "LocalBlend": {"words": "dog"}, "PromptMixing": {"word": "bike", "proxies": "cat"},
    "SkipLayerGuidance": {"layers": (3,), "window": 1.0},
    "MasaCtrl": {"start": 0}, "Pix2PixZero": {"source": "cat", "target": "dog"}, "Reweight": {"weights": {"dog": 2}},
    "SemanticGuidance": {"concepts": {"snow": 1}}, "StructuredDiffusion": {"phrases": ("a cat",), "prompts": (0,)},
}  # fmt: skip


def example(kind: type[pw.Control]) -> pw.Control:
    return kind(**EXAMPLES.get(kind.__name__, {}))


CONTROLS = [kind for kind in vars(methods).values() if isinstance(kind, type) and issubclass(kind, pw.Control)]
JOINT = (pw.Consist, pw.FlowEdit, pw.UniEdit, pw.DirectEdit, pw.KVEdit)  # for networks with joint attention


@pytest.fixture()
def own(tmp_path, monkeypatch):
    """A module of a user's, and the folder that it is in."""
    (tmp_path / "my_controls.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("my_controls"), tmp_path
    sys.modules.pop("my_controls", None)


def forget(name: str) -> None:
    """As in a fresh process, which has not imported the module."""
    sys.modules.pop(name)
    for path in [path for path in KNOWN if path.startswith(f"{name}:")]:
        KNOWN.pop(path)


def test_a_saved_picture_of_an_own_control_replays_where_its_module_is_allowed(own, tiny_folder, capsys):
    module, folder = own
    control = module.Louder("dog", 2.5, pw.Window(0.1, 0.9))
    made = pw.edit(SOURCE, TARGET, model=str(tiny_folder), controls=[pw.Replace(), control], steps=3)
    made.save(folder / "out")
    assert pw.replay(folder / "out" / "edit.png").matches  # registered: nothing need be allowed
    assert Recipe.from_dict(read_record(folder / "out" / "edit.png")["recipe"]) == made.recipe
    (folder / "my_controls.imported").unlink()
    from promptweave.apps.cli import main

    forget("my_controls")
    refused = r"control Louder is defined in the module my_controls, which is not imported.*--allow-module my_controls"
    with pytest.raises(BrokenRecipe, match=refused):
        pw.replay(folder / "out" / "edit.png", allow_modules=["other_module"])
    with pytest.raises(SystemExit) as end:
        main(["replay", str(folder / "out" / "edit.png")])
    assert end.value.code == 2 and "--allow-module my_controls" in capsys.readouterr().err
    assert not (folder / "my_controls.imported").exists()
    with pytest.raises(SystemExit) as end:
        main(["replay", str(folder / "out" / "edit.png"), "--allow-module", "my_controls"])
    assert end.value.code == 0 and "pixels match" in capsys.readouterr().out


def test_an_allowed_module_that_is_not_there(own, tmp_path):
    values = control_as_dict(own[0].Louder("dog"))
    for path, allow, said in (
        ("gone_module:Louder", ["gone_module"], "gone_module, which cannot be imported.*PYTHONPATH"),
        ("my_controls:Quieter", ["my_controls"], "no longer defines a control"),
        ("my_package.controls:Louder", ["my_pack"], 'allow_modules=."my_package.controls"'),
    ):
        with pytest.raises(BrokenRecipe, match=said):
            control_from_dict({**values, "class": path}, allow)


def test_of_two_classes_of_one_name_the_path_decides(own):
    @dataclass(frozen=True)
    class Louder(pw.Control):
        words: tuple[str, ...] = ()

    @dataclass(frozen=True)
    class Replace(pw.Control):
        mine: int = 1

    assert path_of(own[0].Louder) == "my_controls:Louder" and path_of(Louder).endswith("<locals>.Louder")
    for control in (own[0].Louder("dog", span=pw.Window(0.2, 0.4)), Louder(("a", "b")), Replace(3), pw.Replace(0.3)):
        values = json.loads(json.dumps(control_as_dict(control)))
        assert control_from_dict(values) == control and type(control_from_dict(values)) is type(control)


@pytest.mark.parametrize("kind", CONTROLS, ids=lambda kind: kind.__name__)
def test_every_control_survives_json_and_old_recipes_have_no_path(kind):
    control = example(kind)
    values = json.loads(json.dumps(control_as_dict(control)))
    assert values.pop("class") == f"{kind.__module__}:{kind.__name__}"
    assert control_as_dict(control_from_dict(values)) == control_as_dict(control)
    moved = {**values, "class": f"promptweave.an_older_place:{kind.__name__}"}
    assert type(control_from_dict(moved)) is kind


def test_a_parameter_that_a_recipe_cannot_have(tiny):
    values = control_as_dict(pw.Replace())
    with pytest.raises(BrokenRecipe, match="Replace has no parameter 'crss'. Did you mean cross?"):
        control_from_dict({**values, "crss": 1})
    with pytest.raises(ValueError, match="Replace.cross must be"):
        control_from_dict({**values, "cross": "x"})
    with pytest.raises(BrokenRecipe, match="Reweight cannot be made"):
        control_from_dict({"control": "Reweight"})

    @dataclass(frozen=True)
    class Odd(pw.Control):
        what: object = object()

    with pytest.raises(TypeError, match="what of Odd is a object, which a recipe cannot hold"):
        control_as_dict(Odd())


@pytest.mark.parametrize("kind", [kind for kind in CONTROLS if kind not in JOINT],
                         ids=lambda kind: kind.__name__)  # fmt: skip
def test_every_control_has_its_page(tiny, kind):
    control = kind(((1.0,) * 32,) * 32) if kind is pw.Inpaint else example(kind)
    target = SOURCE if kind is pw.Pix2PixZero else TARGET
    made = pw.edit(SOURCE, target, model=tiny, controls=[control], steps=3, maps=True)
    page = pw.html_report(made)
    assert page.startswith("<!doctype html>") and f"<th>{kind.__name__}</th>" in page


def test_the_page_of_an_own_control_is_in_python(own, tiny):
    control = own[0].Louder("dog")
    page = pw.html_report(pw.edit(SOURCE, TARGET, model=tiny, controls=[control], steps=3, maps=True))
    assert (
        "Louder cannot be requested by the options of promptweave edit" in page
        and "from my_controls import Louder" in page
    )
    assert "controls=[Louder(word=&#x27;dog&#x27;)]" in page or "controls=[Louder(word=&#39;dog&#39;)]" in page


def test_a_stranger_cannot_make_controls_of_the_hosts_own(own, tiny, tmp_path):
    made = pw.edit(SOURCE, TARGET, model=tiny, controls=[own[0].Louder("dog")], steps=2)
    info = PngInfo()
    info.add_itxt(KEY, json.dumps(made.record))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "upload.png", pnginfo=info)
    with pytest.raises(BrokenRecipe, match="made with Louder, which this page does not have"):
        read_upload(tmp_path / "upload.png")


def test_the_example_saves_and_replays_elsewhere(tmp_path, monkeypatch):
    example_folder = Path(__file__).parents[2] / "examples"
    monkeypatch.syspath_prepend(example_folder)
    importlib.import_module("own_control").main(tmp_path / "own", steps=2)
    code = f"""import sys; sys.path.insert(0, {str(example_folder)!r}); import promptweave as pw
print(pw.replay(sys.argv[1], allow_modules=["own_control"]).matches)"""
    run = [sys.executable, "-c", code, tmp_path / "own" / "edit.png"]  # in a process that has imported nothing of it
    again = subprocess.run(run, capture_output=True, text=True)
    assert again.stdout.strip() == "True", again.stderr

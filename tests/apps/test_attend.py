"""promptweave attend and what its pictures are made of."""

from __future__ import annotations

import json

import numpy as np
import pytest

from promptweave.apps.cli import main
from promptweave.benchmarks.bench_methods import MEASURES, bench_methods
from promptweave.models.load import load
from promptweave.view.curves import curves
from promptweave.words.phrases import NoParser, nouns, parser


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def test_the_command(tmp_path, capsys):
    folder = tmp_path / "made"
    arguments = ("attend", "a photo of a cat and a car", "--steps", "2", "-o", str(folder), "--json")
    assert run(*arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["report"]["controls"][0]["losses"]["0"]) == {"cat", "car"}
    assert {path.name for path in folder.iterdir()} >= {"steered.png", "plain.png", "maps.png", "losses.png"}
    assert run(*arguments) != 0 and "already holds a run" in capsys.readouterr().err
    assert run(*arguments[:2], "--word", "dog", "-o", str(tmp_path / "other")) != 0
    assert "'dog' is not a word" in capsys.readouterr().err


def test_nouns():
    assert nouns("a photo of a cat riding a bike in the snow") == ("cat", "bike", "snow")
    assert nouns("a cat next to a cat") == ("cat#1", "cat#2")
    with pytest.raises(ValueError, match="No noun"):
        nouns("very red")


def test_without_the_parser(monkeypatch):
    monkeypatch.setattr("promptweave.words.phrases.MODEL", "no_such_model")
    parser.cache_clear()
    with pytest.raises(NoParser, match=r"extra 'nlp' is not installed.*promptweave\[nlp\]"):
        nouns("a cat")
    parser.cache_clear()


def test_curves():
    picture = np.asarray(curves({"cat": [1.0, 0.5, 0.2], "dog": [0.2, 0.2, 0.2]}, title="loss"))
    assert picture.shape == (360, 640, 3)
    for colour in ((0, 114, 178), (213, 94, 0)):
        assert (picture == colour).all(-1).any()
    assert np.asarray(curves({"cat": [1.0]})).std() > 0, "one value is a point, not an error"


def test_bench_methods(capsys):
    assert run("bench", "methods", "attend", "--count", "1", "--steps", "2", "--json") == 0
    (figure,) = json.loads(capsys.readouterr().out)["figures"]
    assert figure["method"] == "Attend-and-Excite" and figure["steered"] in (0, 1)  # of one prompt
    with pytest.raises(ValueError, match=f"can be measured: {', '.join(MEASURES)}. Received nothing"):
        bench_methods(load("toybox"), ("nothing",))

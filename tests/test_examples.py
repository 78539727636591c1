"""The scripts in examples/ run, and are short."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path, capsys):
    assert len(path.read_text().splitlines()) <= 40
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path / "out", steps=2)
    assert list((tmp_path / "out").rglob("*.png")), "an example writes pictures"


def test_there_are_examples():
    assert len(EXAMPLES) >= 5

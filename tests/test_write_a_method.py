"""The method that docs/write_a_method.md writes runs, and is the one in the package."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

import promptweave as pw
from promptweave.apps import declared
from promptweave.apps.cli import build

PAGE = Path(__file__).parents[1] / "docs" / "write_a_method.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory):
    """The Python of the page as one file, imported."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    path = tmp_path_factory.mktemp("page") / "perturbed.py"
    path.write_text("\n\n".join(blocks))
    spec = importlib.util.spec_from_file_location("page_perturbed", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_it_is_the_method_of_the_package(written, tiny64):
    def latents(control):
        return pw.edit(written.PROMPT, written.TARGET, model=tiny64, controls=[pw.Replace(), control], steps=3).sample

    own, ours = (latents(c).latents for c in (written.Perturbed(2.0), pw.PerturbedAttentionGuidance(2.0)))
    torch.testing.assert_close(own, ours, rtol=1e-12, atol=1e-12)


def test_its_images(written, tmp_path):
    assert written.images(tmp_path, steps=2) == [{"control": "Perturbed", "layers": ["mid_self_0_res_4"]}]
    assert {path.name for path in tmp_path.iterdir()} == {"perturbed.png", "edited.png"}


def test_its_file_is_a_command(written, tmp_path, monkeypatch):
    """Name, help and flags are read from the file alone, put where methods are."""
    (tmp_path / "methods").mkdir()
    shutil.copy(written.__file__, tmp_path / "methods" / "perturbed.py")
    cached = (declared.declared, declared.method_commands, declared._module)
    for one in cached:
        one.cache_clear()
    monkeypatch.setattr(declared, "ROOT", tmp_path)
    try:
        made = build()["pag"]
        assert made.help == "Lead an image away from one without structure."
        own = made.default_command.flags["own"]
        assert [(one.flag, one.default) for one in own.listed] == [("--scale", 3.0), ("--window", 1.0)]
    finally:
        for one in cached:
            one.cache_clear()


def test_its_test(written, tiny):
    written.test_twice_the_scale_leads_twice_as_far(tiny)


def test_its_errors(written, tiny):
    with pytest.raises(pw.NoEffect, match="needs a scale and a step"):
        pw.generate(written.PROMPT, model=tiny, controls=[written.Perturbed(0)], steps=2)
    with pytest.raises(ValueError, match="middle block of a UNet"):
        pw.generate(written.PROMPT, model="toybox-dit", controls=[written.Perturbed()], steps=2)


def test_it_is_one_page_of_ten_concepts():
    lines = PAGE.read_text().splitlines()
    assert len(lines) <= 150
    start = lines.index("|---|---|---|")
    assert sum(line.startswith("| `") for line in lines[start : start + 12]) == 10

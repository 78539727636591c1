"""The measures of translations, on a translator that makes no mistake and on one that ignores what it is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from promptweave.apps.cli import main
from promptweave.benchmarks import bench_net2net, measure_net2net
from promptweave.translation.pairs import Pairs
from promptweave.translation.train_flows import FlowTraining, train_flows
from promptweave.translation.translator import Translated, Translator
from promptweave.world.caption import caption

SMALL = FlowTraining(scenes=32, summary_steps=2, flow_steps=2, batch=8, dim=6, width=16)


class Kept:
    """An expert whose codes are the images themselves."""

    name, dim = "images", 1

    def encode(self, given):
        return torch.from_numpy(np.stack(given))

    def decode(self, codes):
        return codes.numpy()


class Perfect(Translator):
    """It draws the scene that a caption or a text of labels stands for; `deaf`: always that of the first condition."""

    def __init__(self, deaf: bool = False) -> None:
        self.scenes: dict[str, object] = {}
        self.deaf = deaf
        self.target = Kept()

    def told(self, scene) -> str:
        """A text of its own for each scene."""
        text = f"{caption(scene)} {scene.detail} {scene.things[0].x}"
        self.scenes[text] = scene
        return text

    def sample(self, text, count, seed):
        picture = measure_net2net.drawn(self.scenes[text])
        return shown(np.stack([picture] * count)[None])

    def exchange(self, given, before, after):
        made = measure_net2net.drawn(self.scenes[before if self.deaf else after])
        return shown(np.stack([given, given, made])[None])


def shown(pictures: np.ndarray) -> Translated:
    nothing = torch.zeros(*pictures.shape[:2], 1)
    return Translated(pictures, (), nothing, nothing, {})


@pytest.mark.parametrize("deaf", [False, True])
def test_a_translator_without_mistakes_is_found_to_make_none(monkeypatch, deaf):
    translator, ticks = Perfect(deaf), []
    monkeypatch.setattr(measure_net2net, "caption", translator.told)
    found = measure_net2net.measure_text(translator, count=4, seed=0, progress=lambda: ticks.append(1))
    assert len(ticks) == 8 and found["samples: all of it"] == found["codes: thing"] == 1
    assert found["diversity"] == 0 < found["diversity of drawn scenes"] and found["codes: PSNR"] == 60
    assert found["exchange: changed"] == (0 if deaf else 1)
    assert found["exchange: PSNR"] < 40 if deaf else found["exchange: PSNR"] == 60
    if not deaf:
        assert found["exchange: kept"] == 1 and found["exchange: moved"] == 0 and found["exchange: cycle: PSNR"] == 60


def test_exchanges_between_domains_are_judged(monkeypatch):
    for deaf in (False, True):
        translator = Perfect(deaf)
        monkeypatch.setattr(measure_net2net, "labels_of", translator.told)
        found = measure_net2net.measure_domains(translator, count=4, seed=0)
        for kind in ("photo and sketch", "day and night"):
            assert found[f"{kind}: changed"] == (0 if deaf else 1)
            assert found[f"{kind}: the thing stays"] == 1 and found[f"{kind}: moved"] < 0.02


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder of numbers that mean nothing."""
    made = tmp_path_factory.mktemp("bench")
    generator = torch.Generator().manual_seed(0)
    latents, prompts = (torch.randn(shape, generator=generator).half() for shape in ((32, 8, 16, 16), (32, 3, 384)))
    pairs = Pairs(latents, prompts, torch.eye(4).half()[torch.arange(32) % 4])
    pairs.save(made / "pairs.safetensors", {"scenes": "32", "seed": "0"})
    train_flows(made, SMALL, ["summary"], "cpu")
    return made


def test_flows_and_rivals_are_trained_and_measured_alike(folder, monkeypatch, capsys):
    seen: list[str] = []

    def measured(translator, *, count, seed, progress):
        seen.append(translator.name)
        return {"figure": float(len(seen))}

    monkeypatch.setattr(bench_net2net, "MEASURES", {"text": measured, "domains": measured})
    with pytest.raises(SystemExit) as end:
        main(["bench", "net2net", "--folder", str(folder), "--scenes", "32", "--flow-steps", "2", "--batch", "8",
              "--dim", "6", "--width", "16", "--repeats", "2", "--json"])  # fmt: skip
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert seen == [f"{kind}, seed {seed}" for _ in range(2) for kind in bench_net2net.KINDS for seed in range(2)]
    assert found["text"]["conditional VAE"] == {"figure": 3.5, "figure +-": 0.5}
    assert len(list((folder / "compared").glob("*.pt"))) == 8
    with pytest.raises(FileNotFoundError, match="Train first: promptweave net2net train --folder"):
        bench_net2net.trained(folder / "none", SMALL, "text", "flow", 0)

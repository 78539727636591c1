"""Operations of a step, exactly: a change that launches more is seen here, on any machine."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from tiny import build_tiny

from promptweave.apps.cli import main
from promptweave.benchmarks import bench_host

# With the versions of constraints.txt. Fewer than here is a gain to be written down; more is one to be explained.
OPERATIONS = {
    "sd15": {
        "diffusers": 762,
        "plain": 688,
        "word swap": 723,
        "word swap, local blend": 754,
        "word maps": 703,
        "refine": 739,
        "re-weight": 688,
        "MasaCtrl": 694,
        "plug-and-play": 695,
        "a fresh edit": 723,
        "a target on a recording": 739,
    },
    "sdxl": {
        "diffusers": 1888,
        "plain": 1593,
        "word swap": 1733,
        "word swap, local blend": 1779,
        "word maps": 1623,
        "refine": 1803,
        "re-weight": 1593,
        "MasaCtrl": 1619,
        "plug-and-play": 1633,
        "a fresh edit": 1733,
        "a target on a recording": 1804,
    },
}


@pytest.fixture(scope="module")
def pipelines():
    return bench_host.built()


@pytest.mark.parametrize("family", OPERATIONS)
def test_operations_of_a_step(pipelines, family):
    counted = {name: bench_host.operations(run) for name, run in bench_host.runs(pipelines[family]).items()}
    assert counted == OPERATIONS[family]


def test_ten_word_maps_fit_into_a_head(pipelines):
    """Else they are read apart, and what is counted is another thing."""
    from promptweave import load

    for pipeline in pipelines.values():
        assert {site.dim for site in load(pipeline).sites((8, 8))} == {16}


def test_views_are_not_counted():
    with bench_host.Operations() as seen:
        x = torch.zeros(2, 3)
        (x.transpose(0, 1)[0].unsqueeze(0).reshape(1, 2) + 1).sum()
    assert seen.count == 3  # zeros, add, sum


def test_the_command(tokenizer, monkeypatch, capsys):
    monkeypatch.setattr(bench_host, "built", lambda: {"tiny": build_tiny(tokenizer)})
    few = dict(list(bench_host.VARIANTS.items())[:2])  # all of them are counted above
    monkeypatch.setattr(bench_host, "VARIANTS", few)
    with pytest.raises(SystemExit) as end:
        main(["bench", "host", "--steps", "3", "--json"])
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out)["tiny"]
    assert set(found) == {"diffusers", *few, "a fresh edit", "a target on a recording"}
    edit, plain = found["word swap"], found["plain"]
    assert edit["operations over"] == edit["operations"] / plain["operations"] > 1
    assert plain["step over"] == pytest.approx(
        plain["step"] / found["diffusers"]["step"]
    )  # of the one step that counts
    assert all(figures["step"] > 0 for figures in found.values())


def test_runs_take_turns_after_every_step() -> None:
    seen: list[str] = []

    def run(name: str, steps: int, mark: bench_host.Mark) -> None:
        for step in range(steps):
            seen.append(f"{name}{step}")
            mark()
        seen.append(f"{name} ends")

    taken = bench_host.in_turns({name: partial(run, name) for name in "ab"}, 2, lambda: None)
    assert seen == ["a0", "b0", "a1", "b1", "a ends", "b ends"]
    assert {name: len(times) for name, times in taken.items()} == {"a": 2, "b": 2}

    def fails(steps: int, mark: bench_host.Mark) -> None:
        raise ValueError("no such network")

    with pytest.raises(ValueError, match="no such network"):
        bench_host.in_turns({"a": fails}, 2, lambda: None)
    with pytest.raises(ValueError, match="Received 2"):
        bench_host.bench_host({}, steps=2)

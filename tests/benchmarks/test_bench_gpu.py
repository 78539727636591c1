"""The GPU benchmark on the CPU, with tiny pipelines, so that it works where it is needed."""

from __future__ import annotations

import pytest
import torch
from families import build_flux
from tiny import build_tiny

from promptweave.apps import commands_bench
from promptweave.apps.cli import main
from promptweave.benchmarks import bench_gpu
from promptweave.benchmarks.bench_gpu import Case, Figure, markdown

CPU = torch.device("cpu")


@pytest.fixture
def known(tokenizer):
    return {
        "sd15": Case(lambda: build_tiny(tokenizer), (32, 32), 2, 3.0, 1),
        "flux-dev": Case(lambda: build_flux(tokenizer), (32, 32), 5, 3.0, 1),
    }


def test_every_run_of_every_family_is_measured(known, monkeypatch):
    monkeypatch.setattr(bench_gpu, "TARGETS", (1, 2))
    seen = []
    made = list(bench_gpu.bench_gpu(tuple(known), device=CPU, known=known, progress=lambda *_: seen.append(1)))
    assert [figures[0].family for figures in made] == list(known)
    for figures in made:
        assert [f.failed for f in figures] == [""] * len(figures)
        assert all(f.seconds > 0 and f.over_diffusers > 0 and f.over_plain > 0 for f in figures)
        names = [f.name for f in figures]
        assert ("diffusers, explicit matrices" in names) == (figures[0].family == "sd15")
        assert names[-4:-2] == ["1 target", "2 targets"]
        assert names[-2:] == ["a target on a recording (device)", "a target on a recording (cpu)"]
    assert len(seen) == 2 * sum(map(len, made))
    text = markdown([f for figures in made for f in figures], CPU, known)
    lines = text.splitlines()
    assert f"torch {torch.__version__}" in lines[0] and len(lines) == 4 + sum(map(len, made))
    assert (
        lines[4].startswith("| sd15, 32 x 32, 2 steps | diffusers | ") and len({x.count("|") for x in lines[2:]}) == 1
    )


def test_a_run_that_fails_leaves_the_others_their_figures(known, monkeypatch):
    def broken(steps):
        raise RuntimeError("out of | memory")

    monkeypatch.setattr(bench_gpu._Bench, "_theirs", lambda self, steps: broken(steps))
    ((first, plain, *_),) = bench_gpu.bench_gpu(["sd15"], quick=True, device=CPU, known=known)
    assert first == Figure("sd15", "diffusers", failed="RuntimeError: out of | memory")
    assert plain.seconds > 0 and plain.over_diffusers is None and plain.over_plain == 1
    assert "| failed: RuntimeError: out of / memory |" in markdown([first], CPU, known)


def test_an_unknown_family_is_named(known):
    with pytest.raises(ValueError, match="no family 'sd9'. Choose of sd15, flux-dev"):
        list(bench_gpu.bench_gpu(["sd9"], device=CPU, known=known))


def test_the_command_writes_its_table_after_each_family(known, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench_gpu, "gpu", lambda: CPU)
    monkeypatch.setattr(bench_gpu, "cases", lambda: known)
    path = tmp_path / "table.md"
    with pytest.raises(SystemExit) as end:
        main(["bench", "gpu", "--families", "sd15, sd15", "--quick", "--repeats", "1", "-o", str(path)])
    assert end.value.code == 0
    assert path.read_text().count("| plain | ") == 2 and f"wrote {path}" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what it says where there is no GPU")
def test_without_a_gpu_it_says_so(capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "gpu"])
    assert end.value.code == 2 and "needs a GPU, and torch sees none here" in capsys.readouterr().err


def test_the_families_of_the_option_are_those_of_the_table():
    assert tuple(bench_gpu.cases()) == bench_gpu.FAMILIES
    assert commands_bench.Card().families.split(",") == list(bench_gpu.FAMILIES)

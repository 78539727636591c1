"""The soak of the page: what it measures, and when it fails."""

from __future__ import annotations

import os

import pytest

from promptweave.apps.cli import main
from promptweave.benchmarks import bench_page
from promptweave.benchmarks.bench_page import Moment, NotFlat, check, files, growth, plot, resident


def course(memory, count) -> list[Moment]:
    return [Moment(10.0 * i, float(memory(i)), count(i), i // 9) for i in range(91)]


def test_a_page_that_fills_up_and_stays_is_flat():
    moments = course(lambda i: min(700 + 20 * i, 1000) + i % 3, lambda i: min(5 * i, 100) + i % 4)
    check(moments)
    memory, peak, count = growth(moments)
    assert memory.thirds == (1001, 1001, 1001) or memory.share == 0
    assert peak.thirds[2] == 1002 and count.flat and count.thirds[0] < count.thirds[2]


@pytest.mark.parametrize(
    ("memory", "count", "said"),
    [
        (lambda i: 700 + 2 * i, lambda i: 50, "megabytes: from 790 to 850"),
        (lambda i: 700, lambda i: 100 + i, "files: from 145 to 175"),
        (lambda i: 800 if i == 85 else 700, lambda i: 50, "megabytes, at most: from 700 to 800"),
    ],
)
def test_a_page_that_grows_is_not(memory, count, said):
    with pytest.raises(NotFlat, match=said):
        check(course(memory, count))


def test_memory_and_files_are_those_of_the_system(tmp_path):
    assert 50 < resident(os.getpid()) < 100_000
    (tmp_path / "a").mkdir()
    for name in ("b", "a/c", "a/d"):
        (tmp_path / name).touch()
    assert files(tmp_path) == 3


def test_the_command_writes_the_picture_and_fails_if_it_grows(tmp_path, monkeypatch, capsys):
    grown = [course(lambda i: 700, lambda i: 50), course(lambda i: 700 + 2 * i, lambda i: 50)]
    monkeypatch.setattr(bench_page, "soak", lambda *given, **named: grown.pop(0))
    with pytest.raises(SystemExit) as end:
        main(["bench", "page", "--minutes", "15", "-o", str(tmp_path / "page.png")])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "4 clients, 10 visits" in said and "megabytes" in said and (tmp_path / "page.png").stat().st_size > 1000
    with pytest.raises(SystemExit) as end:
        main(["bench", "page", "--minutes", "15"])
    assert end.value.code == 1
    assert "It grew" in capsys.readouterr().err


def test_the_plot_has_two_parts():
    assert plot(course(lambda i: 700, lambda i: 50)).size == (760, 600)

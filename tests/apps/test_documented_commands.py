"""The commands of README and docs, as written and in order, each page in a folder of its own.

A tiny pipeline of the same classes stands in for each embedded model. README's commands run to their end in two steps,
but for its grids; those of the other pages run until they first ask the network, so that their options, words, windows,
models, input files and folders have been read and checked. `test_docs.py` parses all, those left out here included.
"""

from __future__ import annotations

import random
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from families import build_sd3
from PIL import Image
from test_docs import COMMANDS, HERE
from tiny import build_tiny

from promptweave.apps.cli import main
from promptweave.models import load
from promptweave.models.pipeline import PipelineModel
from promptweave.models.sd3 import SD3Model
from promptweave.models.unet import UNetModel
from promptweave.world.render import render
from promptweave.world.scene import random_scene

# Servers and trainings do not end by themselves; benchmarks are timed or need data of others; Net2Net and perception
# have networks of their own.
LONG = {"app", "train", "perceive-train", "bench", "report", "perceive", "net2net", "doctor", "caption"}
# A reader fills these in, or has these files and models; and pixels and blocks that the stand-ins lack.
THEIRS = re.compile(
    r"\b(PROMPT|SOURCE|TARGET|TEXT|FOLDER|owner)\b|/stable-diffusion|black-forest-labs/|--caption |\./|"
    r"pixel=|--layer 4|cats\.txt"
)
IMAGES = re.compile(r"[\w./-]+\.(?:png|jpg)")
GRIDS = ("sweep", "maps")
QUICK = ("words", "sites", "replay", "segment")  # no network, or after the image that README's commands make
# These plan a dozen runs before the first, read a recording, or load spaCy.
SLOW = ("--auto", "promptweave sweep", "--recording", 'compose "a', "out/nouns")


class Reached(Exception):
    """A command asked the network: all that it was given has been accepted."""


def words_of(line: str) -> list[str]:
    """The arguments of a command."""
    return shlex.split(line, comments=True)[1:]


RUN = {
    page: found
    for page, lines in COMMANDS.items()
    if (found := [line for line in lines if line.split()[1] not in LONG and not THEIRS.search(line)])
}


@pytest.fixture(scope="module")
def pipelines(tokenizer):
    return {"toybox": build_tiny(tokenizer), "toybox-fast": build_tiny(tokenizer), "toybox-dit": build_sd3(tokenizer)}


@pytest.fixture()
def stand_in(pipelines, tmp_path, monkeypatch):
    """An empty folder, and tiny networks under the embedded models' names."""
    monkeypatch.setattr(load, "_read", lambda model, *_: pipelines[model])
    load.load_cached.cache_clear()
    monkeypatch.chdir(tmp_path)
    yield
    load.load_cached.cache_clear()


def call(line: str, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(words_of(line))
    assert not end.value.code, f"{line}\n{capsys.readouterr().err}"


def reaches(line: str, capsys) -> None:
    with pytest.raises(SystemExit):
        main(words_of(line))
    said = capsys.readouterr().err
    assert "Reached" in said, f"{line}\n{said}"


def unreachable(*_, **__):
    raise Reached


def test_the_commands_of_the_readme_run_in_order(stand_in, monkeypatch, capsys) -> None:
    monkeypatch.setattr(PipelineModel, "defaults", property(lambda self: (2, 7.5)))
    for line in RUN[HERE / "README.md"]:
        if line.split()[1] not in GRIDS:
            call(line, capsys)


def given(line: str) -> None:
    """Put an image where a command reads one: a photo of the reader, or what a command before it has written."""
    for name in IMAGES.findall(line.partition(" -o ")[0]):
        picture, masks = render(random_scene(random.Random(name)))
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(masks[0] if "mask" in name or "on-bike" in name else picture).save(name)


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(HERE)))
def test_every_other_command_is_accepted(page: Path, stand_in, monkeypatch, capsys) -> None:
    for kind in (UNetModel, SD3Model):
        monkeypatch.setattr(kind, "predict", unreachable)
    lines = [line for line in RUN[page] if page.name != "README.md" or line.split()[1] in GRIDS]
    for line in lines:
        if line.split()[1] in QUICK or any(slow in line for slow in SLOW):
            continue
        given(line)
        reaches(line, capsys)


def place_of(line: str) -> str:
    """Where a command writes."""
    found = re.search(r" (?:-o|--output) (\S+)", line)
    return found[1] if found else f"out/{line.split()[1]}"


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(HERE)))
def test_commands_of_a_page_do_not_meet_and_read_what_was_written(page: Path) -> None:
    writing = [line for line in RUN[page] if line.split()[1] not in ("words", "sites", "replay")]
    assert [place for place, count in Counter(map(place_of, writing)).items() if count > 1] == []
    for number, line in enumerate(RUN[page]):
        read = {name for name in re.findall(r"\bout/[\w./-]+", line.partition(" -o ")[0])}
        written = [place_of(earlier) for earlier in RUN[page][:number]]
        assert all(any(name.startswith(place) for place in written) for name in read), line


def test_most_commands_are_run() -> None:
    assert sum(map(len, RUN.values())) > 45

"""Files of jobs: whatever stands in a line, the line is named with its rule, and no other line suffers from it."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import os
import re
import signal
import warnings

import numpy as np
import pytest
from PIL import Image

import promptweave as pw
from promptweave.core import files
from promptweave.editing import checking
from promptweave.editing.job_file import LISTED, BadJobs
from promptweave.editing.jobs import read_jobs, run_jobs
from promptweave.editing.recipe import Recipe
from promptweave.editing.result import read_record
from promptweave.words import Words

SOURCE, TARGET = "a photo of a cat riding a bike in the snow", "a photo of a dog riding a bike in the snow"
JOB = {"source": SOURCE, "targets": [TARGET], "steps": 3}


def line(**changes) -> str:
    return json.dumps({**JOB, **changes})


WRONG = {
    "no object": ("[1, 2]", "JSON object"),
    "no JSON": ("{source: 1}", "not JSON.*column 2"),
    "cut off": (line()[:30], "not JSON"),
    "no source": ('{"targets": ["a cat"]}', '"source"'),
    "a number as target": (line(targets=[3]), r"targets must be .*Received \[3\]"),
    "nested targets": (line(targets=[[TARGET]]), "targets must be"),
    "a number as source": (line(source=3), '"source", the prompt of the image, as text'),
    "an empty prompt": (line(targets=[" "]), "Prompt 2 is empty"),
    "a size in words": (line(size="big"), "size takes pixels, such as 512 or 512x768"),
    "a size of three": (line(size=[1, 2, 3]), "size must be 2 values"),
    "a size that does not fit": (line(size="33x48"), "multiples of 2"),
    "steps as text": (line(steps="20"), "steps must be a whole number. Received '20'"),
    "half a step": (line(steps=2.5), "steps must be a whole number. Received 2.5"),
    "NaN": (line(guidance=float("nan")), "guidance must be a number, finite"),
    "a number too large": (line(threshold=1).replace('"threshold": 1', '"threshold": 1e999'), "threshold must be"),
    "an integer too large": (line(seed=10**30), "seed must be a whole number"),
    "thousands of digits": (line(seed=1).replace('"seed": 1', '"seed": ' + "1" * 5000), "5000 digits"),
    "a key twice": ('{"source": "a cat", "source": "a dog"}', "'source' stands there twice"),
    "an unknown key": (line(target="a dog"), "no key 'target'. Did you mean targets?"),
    "an unknown word": (line(blend="horse"), "'horse' is not a word"),
    "a missing image": (line(image="none.png"), "no image at .*none.png"),
    "an image that is none": (line(image="text.png"), "text.png cannot be read: it is not an image"),
    "a missing mask": (line(mask="none.png"), "The mask: there is no image at .*none.png"),
    "a mask that is none": (line(mask="text.png"), "text.png cannot be read: it is not an image"),
    "a mask of words": (line(mask=[["a"]]), "The mask has rows of numbers"),
    "a path with NUL": (line(image="a\0b"), "NUL"),
    "a name with a slash": (line(name="../../x"), "name of its folder"),
    "a long name": (line(name="é" * 200), "at most 255 bytes"),
    "a name twice": (line(name="first"), "Names must be unique. Received 'first', which line 1 has too"),
    "the name of a number": (line(name="0002"), "Received '0002', which line 2 has too"),
    "half of a character": (line().replace("cat", "\\ud800"), "surrogates"),
    "nested too deeply": ('{"source": ' + "[" * 100_000, "nested too deeply"),
    "a mask nested too deeply": (line(mask=0).replace(": 0", ": " + "[" * 900 + "]" * 900), "rows of numbers"),
}  # fmt: skip


def test_every_wrong_line_is_named_with_its_rule_in_one_run(tiny, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    lines = [line(name="first"), line(), *(text for text, _ in WRONG.values())]
    path = tmp_path / "jobs.jsonl"
    path.write_bytes("\n".join(lines).encode() + b'\n{"source": "caf\xe9"}\n')
    jobs = read_jobs(path, tiny, check=False)
    found = [job for job in jobs.each(check=True) if not isinstance(job, type(jobs[0]))]
    assert [wrong.line for wrong in found] == [*range(3, len(lines) + 2)]
    for wrong, (name, (_, rule)) in zip(found, WRONG.items(), strict=False):
        assert re.search(rule, wrong.message), (name, wrong.message)
        assert "\n" not in wrong.message and len(wrong.message) < 700, name
    assert "not UTF-8: byte 16 is 0xe9" in found[-1].message
    with pytest.raises(BadJobs) as caught:
        read_jobs(path, tiny)
    text = str(caught.value)
    assert text.startswith(f"{len(found)} of {len(lines) + 1} jobs") and text.count("\nline ") == LISTED
    assert f"and {len(found) - LISTED} more lines" in text


def test_what_people_write_is_read(tiny, tmp_path):
    """A byte order mark, Windows' line ends, blank lines and comments; paths and sizes as on the command line."""
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "deep" / "m.png")
    Image.fromarray(np.pad(np.full((16, 32), 255, np.uint8), ((0, 16), (0, 0)))).save(tmp_path / "deep" / "half.png")
    lines = ["# my edits", "", line(size="24x40"), "  // and", line(image="m.png"), line(mask="half.png", name="half")]
    path = tmp_path / "deep" / "jobs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n\r\n")
    jobs = read_jobs(path, tiny)
    assert [(job.name, job.line) for job in jobs] == [("0003", 3), ("0005", 5), ("half", 6)]
    assert jobs[0].recipe.size == (24, 40)
    (blend,) = [control for control in jobs[2].recipe.controls if isinstance(control, pw.LocalBlend)]
    mask = np.array(blend.mask)
    assert mask[: len(mask) // 2].all() and not mask[len(mask) // 2 + 1 :].any()
    assert (
        jobs[1].recipe.picture.pixels()[0, 0].tolist() == [254, 0, 0] or jobs[1].recipe.picture.pixels()[0, 0, 0] > 250
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "holds no jobs"),
        (b"\n \n# nothing\n", "holds no jobs"),
        (b"[\n" + line().encode() + b",\n]", "One value over several lines is not read"),
        (json.dumps(JOB, indent=1).encode(), "One value over several lines is not read"),
        (b"source,targets\na cat,a dog\n", "looks like a table"),
        (line().encode("utf-16"), "is UTF-16"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10, "not UTF-8"),
    ],
)  # fmt: skip
def test_files_of_another_kind_are_told_apart(tiny, tmp_path, text, said):
    (tmp_path / "jobs.jsonl").write_bytes(text)
    with pytest.raises(BadJobs, match=said):
        read_jobs(tmp_path / "jobs.jsonl", tiny)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_jobs(tmp_path, tiny)
    with pytest.raises(FileNotFoundError, match="no file of jobs"):
        read_jobs(tmp_path / "none", tiny)


def test_a_line_costs_two_readings_of_words_and_no_file(tiny, tmp_path, monkeypatch):
    """What grows with the number of lines: the tokenizer reads each prompt once, nothing is drawn, no image opened."""
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(line(seed=n, source=f"{SOURCE} {n}", targets=f"{TARGET} {n}") for n in range(50)))
    read: list[str] = []
    words = type(tiny).words
    monkeypatch.setattr(type(tiny), "words", lambda self, prompt: read.append(prompt) or words(self, prompt))
    monkeypatch.setattr("torch.randn", lambda *_, **__: pytest.fail("noise was drawn"))
    monkeypatch.setattr(type(tiny), "encode", lambda *_, **__: pytest.fail("a prompt was encoded"))
    jobs = read_jobs(path, tiny)
    assert len(jobs) == 50 and len(read) == 100 and len(set(read)) == 100

    Image.new("RGB", (48, 32)).save(tmp_path / "photo.png")
    path.write_text("\n".join(line(seed=n, image="photo.png") for n in range(5)))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("an image was decoded"))
    assert len(read_jobs(path, tiny)) == 5


def test_of_a_file_only_places_stay_in_memory(tiny, tmp_path, monkeypatch):
    def alive(kind) -> int:
        gc.collect()
        return sum(type(each) is kind for each in gc.get_objects())

    monkeypatch.setattr(checking, "PROMPTS", 8)
    monkeypatch.setitem(
        vars(tiny), "_known", lambda prompt, empty, *_: tiny._read_words(prompt, empty)
    )  # without the model's own memory of some prompts
    path, before = tmp_path / "jobs.jsonl", (alive(Recipe), alive(Words))
    path.write_text("".join(line(seed=n, name=f"job-{n}", source=f"{SOURCE} {n}") + "\n" for n in range(60)))
    jobs = read_jobs(path, tiny)
    assert len(jobs) == 60 and jobs.file.places.itemsize + jobs.file.numbers.itemsize == 16
    assert alive(Recipe) - before[0] <= 1 and alive(Words) - before[1] <= 8


def test_at_once_runs_before_later_lines_are_checked_and_names_the_wrong_ones_at_the_end(tiny, tmp_path):
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join([line(), line(blend="horse"), line(seed=1), line(image="none.png")]))
    jobs, seen = read_jobs(path, tiny, check=False), []
    with pytest.raises(BadJobs, match=r"(?s)2 of 4 jobs could not be run; the others are done.*line 2: .*line 4: "):
        run_jobs(jobs, tiny, tmp_path / "out", rows=2, check=False, done=lambda job, result: seen.append(job.name))
    assert seen == ["0001", "0003"] and (tmp_path / "out" / "0003" / "edit.json").exists()


def test_a_file_that_changes_while_it_is_run(tiny, tmp_path):
    path = tmp_path / "jobs.jsonl"
    path.write_text(line() + "\n" + line(seed=1))
    jobs = read_jobs(path, tiny)
    path.write_text(line(seed=2))
    with pytest.raises(BadJobs, match="was changed"):
        jobs[1]


def test_a_job_that_fails_in_its_run_loses_no_other(tiny, tmp_path):
    """An image that is gone since its line was checked."""
    Image.new("RGB", (64, 64)).save(tmp_path / "gone.png")
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join([line(), line(image="gone.png"), line(seed=2)]))
    jobs = read_jobs(path, tiny)
    (tmp_path / "gone.png").unlink()
    with pytest.raises(BadJobs, match=r"(?s)1 of 3 jobs .*line 2: There is no image at .*gone.png"):
        run_jobs(jobs, tiny, tmp_path / "out")
    assert {folder.name for folder in (tmp_path / "out").iterdir()} == {"0001", "0003"}


def test_jobs_from_a_pipe_with_defaults_of_the_command(tiny_folder, tmp_path, monkeypatch, capsys):
    from promptweave.apps.cli import main

    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    lines = [{"name": "a", "source": SOURCE, "targets": TARGET}, {"name": "b", **JOB}]
    os.write(writing, "\n".join(map(json.dumps, lines)).encode())
    os.close(writing)
    command = ["edit", "--jobs", f"/dev/fd/{reading}", "--model", str(tiny_folder), "-o", "out", "-q"]
    with pytest.raises(SystemExit) as end:
        main([*command, "--steps", "2"])
    assert end.value.code == 0, capsys.readouterr().err
    steps = [read_record(tmp_path / "out" / name / "edit.json")["recipe"]["steps"] for name in "ab"]
    assert steps == [2, 3]
    for more, said in ((["--compare"], "without --compare"), (["--report"], "without --report")):
        with pytest.raises(SystemExit):
            main([*command, *more])
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["edit", SOURCE, TARGET, "--at-once"])
    assert "--at-once is an option of --jobs" in capsys.readouterr().err


def killed(act, at: int) -> bool:
    """Whether a child process that does this was killed: at the moment when it moves a file for the `at`-th time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which the child does not use
        child = os.fork()
    if child == 0:
        moves, replace = itertools.count(), os.replace

        def move(old, new):
            if next(moves) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(old, new)

        files.os.replace = move
        try:
            act()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.skipif(os.name != "posix", reason="needs fork")
def test_killed_at_any_moment_a_file_of_jobs_loses_repeats_and_halves_nothing(tiny, tmp_path):
    path, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    path.write_text("\n".join(line(seed=n, steps=2, cross=0.5) for n in range(5)))
    ends, times = [], {}
    for at in (0, 1, 3, 4, 6, 99):  # each job moves four files, edit.json last
        ends.append(killed(lambda: run_jobs(read_jobs(path, tiny), tiny, out, rows=2), at))
        for done in out.glob("*/edit.json"):
            pictures = [done.parent / name for name in ("source.png", "edit.png", "comparison.png")]
            assert all(read_record(picture)["recipe"]["steps"] == 2 for picture in pictures)
            assert times.setdefault(done, done.stat().st_mtime_ns) == done.stat().st_mtime_ns, "done once"
    assert ends == [True] * 5 + [False] and len(times) == 5
    assert not list(out.glob("**/.promptweave-*")), "what killed runs left is gone"
    alone = run_jobs(read_jobs(path, tiny), tiny, tmp_path / "alone", rows=2)
    for folder in alone:
        with Image.open(folder / "edit.png") as one, Image.open(out / folder.name / "edit.png") as other:
            assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def test_a_full_disk_ends_a_file_of_jobs_with_what_is_kept(tiny, tmp_path, monkeypatch):
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(line(seed=n, steps=2, cross=0.5) for n in range(3)))
    moves, replace = itertools.count(), os.replace

    def move(old, new):
        if next(moves) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(old, new)

    monkeypatch.setattr(files.os, "replace", move)
    with pytest.raises(files.CannotWrite, match=r"0002.*No space left.*jobs before 0002 are done; run the file again"):
        run_jobs(read_jobs(path, tiny), tiny, tmp_path / "out")
    assert [done.parent.name for done in (tmp_path / "out").glob("*/edit.json")] == ["0001"]
    monkeypatch.undo()
    assert len(run_jobs(read_jobs(path, tiny), tiny, tmp_path / "out")) == 3

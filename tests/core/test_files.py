"""Files are written whole or not at all, whatever the system refuses and whenever the process ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from promptweave.core import files
from promptweave.core.files import CannotWrite, check_folder, check_place, replacing_folder, write_file, write_files

KINDS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT, errno.ENOENT)


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def old_and_new(folder: Path):
    """A folder with a finished pair of files, and the functions that write another."""
    for name in ("a.txt", "mark.txt"):
        (folder / name).write_text("old")
    return {name: lambda path: path.write_text("new") for name in ("a.txt", "b.txt", "mark.txt")}


@pytest.mark.parametrize("kind", KINDS, ids=errno.errorcode.get)
@pytest.mark.parametrize("at", ["write", "move", "folder"])
def test_a_refusal_of_the_system_is_one_sentence_and_leaves_no_part(kind, at, tmp_path, monkeypatch):
    new = old_and_new(tmp_path)

    def refuse(*_, **__):
        raise OSError(kind, os.strerror(kind), "somewhere")

    if at == "write":
        new["b.txt"] = refuse
    elif at == "move":
        monkeypatch.setattr(files.os, "replace", refuse)
    else:
        monkeypatch.setattr(files.tempfile, "mkdtemp", refuse)
    with pytest.raises(CannotWrite) as caught:
        write_files(tmp_path, new)
    said = str(caught.value)
    assert str(tmp_path) in said and os.strerror(kind) in said and "\n" not in said and "Errno" not in said
    assert not list(tmp_path.glob(f"{files.PREFIX}*"))
    left = texts(tmp_path)
    assert left.pop("mark.txt", "old") == "old" and left == {"a.txt": "old"}  # the mark goes before the first move
    if at != "move":
        assert (tmp_path / "mark.txt").exists()


def test_the_mark_goes_first_and_comes_last(tmp_path, monkeypatch):
    """So that a folder whose mark is there is complete, wherever the process was killed."""
    new, seen, replace = old_and_new(tmp_path), [], os.replace

    def watched(old, place):
        seen.append(sorted(name for name, text in texts(tmp_path).items() if text == "new" or name == "mark.txt"))
        replace(old, place)

    monkeypatch.setattr(files.os, "replace", watched)
    (tmp_path / "z-old.txt").write_text("old")
    assert write_files(tmp_path, new, without=("z-*.txt",)) == [tmp_path / name for name in sorted(new)]
    assert seen == [[], ["a.txt"], ["a.txt", "b.txt"]]
    assert texts(tmp_path) == dict.fromkeys(new, "new")


def test_places_that_cannot_be_written_are_told_before_any_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CannotWrite, match="is a folder, and a file"):
        check_place(tmp_path)
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CannotWrite, match="file.*(is a file|Not a directory)"):
            check_folder(place)
    with pytest.raises(CannotWrite, match="/proc/run"):
        check_folder(Path("/proc/run"))
    with pytest.raises(CannotWrite, match="a folder of that name is there"):
        write_file(tmp_path, lambda path: path.write_text("x"))
    assert write_file(tmp_path / "new" / "deep" / "file", lambda path: path.write_text("x")).read_text() == "x"


def test_a_folder_is_replaced_once_it_is_complete(tmp_path):
    folder = tmp_path / "model"
    for text in ("old", "new"):
        with replacing_folder(folder) as fresh:
            (fresh / "weights").write_text(text)
            assert text == "old" or texts(folder) == {"weights": "old"}
    with pytest.raises(CannotWrite, match="No space left"), replacing_folder(folder) as fresh:
        (fresh / "weights").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert texts(folder) == {"weights": "new"} and [path.name for path in tmp_path.iterdir()] == ["model"]


SLOW = """
import sys, time
from pathlib import Path
from promptweave.core.files import write_files
def write(path):
    path.write_text("new" * 1000)
    print("writing", flush=True)
    time.sleep(60)
write_files(Path(sys.argv[1]), {"a.txt": write, "mark.txt": write})
"""


def test_what_a_killed_process_left_is_removed_by_the_next_and_never_read(tmp_path):
    old_and_new(tmp_path)
    with subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        (beside,) = tmp_path.glob(f"{files.PREFIX}*")
        write_file(tmp_path / "other.txt", lambda path: path.write_text("x"))
        assert beside.exists()  # its process still runs
        process.send_signal(signal.SIGKILL)
    assert texts(tmp_path) == {"a.txt": "old", "mark.txt": "old", "other.txt": "x"} and beside.exists()
    foreign = tmp_path / f"{files.PREFIX}00000000-1-x"
    foreign.mkdir()
    write_file(tmp_path / "other.txt", lambda path: path.write_text("y"))
    assert not beside.exists() and foreign.exists()  # that of another machine may be in use

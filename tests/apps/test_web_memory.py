"""What the page keeps is bounded by bytes and age, and goes with the visitor who held it."""

from __future__ import annotations

import fcntl
import gc
import os
import random
import time
from pathlib import Path

import pytest

from promptweave.apps.web import keeper, serve
from promptweave.apps.web.folder import LOCK, OLD, page_folder, remove_left, trim
from promptweave.apps.web.limits import Limits
from promptweave.apps.web.outbox import LAST, Outbox
from promptweave.apps.web.presence import Presence
from promptweave.apps.web.session import Session
from promptweave.apps.web.settings import Form
from promptweave.apps.web.shelf import Shelf
from promptweave.apps.web.studio import Studio
from promptweave.apps.web.tree import weight
from promptweave.benchmarks.page_visitor import Visitor
from promptweave.core.fields import options_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SOURCE, TARGET = "a photo of a cat riding a bike", "a photo of a dog riding a bike"


def wait(until, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)


def test_a_visitor_who_leaves_frees_what_was_held(tiny, monkeypatch):
    monkeypatch.setattr(keeper, "PAUSE", 0.1)
    before = set(page_folder().glob("out-*"))  # of other pages of this process

    def outs() -> set[Path]:
        return set(page_folder().glob("out-*")) - before

    made: list[Studio] = []
    monkeypatch.setattr(serve, "Studio", lambda *given, **named: made.append(Studio(*given, **named)) or made[0])
    page = serve.launch([tiny], port=None, block=False, limits=Limits(away=4, age=1))  # a heartbeat may take its time
    try:
        sessions, studio = page.state_holder.session_data, made[0]
        stays, leaves = (Visitor(page.local_url, random.Random(number)) for number in range(2))
        for number, visitor in enumerate((stays, leaves)):
            (session,) = [s for s in sessions[visitor.hash].state_data.values() if isinstance(s, Session)]
            session.generate(SOURCE, number, 2)
            session.edit(Form(TARGET))
            visitor.call("further")
            visitor.call("undo")
            visitor.call("report")
        del session
        assert set(sessions) == {stays.hash, leaves.hash} and len(studio.shelf) == 2
        assert len(outs()) == 2 * LAST
        leaves.close()
        wait(lambda: set(sessions) == {stays.hash} and len(studio.shelf) == 1)
        wait(lambda: len(outs()) == LAST)
        assert leaves.hash not in page._queue.pending_messages_per_session
        time.sleep(1.2)  # files of the cache have an age
        wait(lambda: len([path for path in page_folder().rglob("*.png") if "out-" not in str(path)]) == 0)
        assert not any(os.path.exists(path) for paths in page.temp_file_sets for path in paths if "out-" not in path)
        assert stays.call("undo") and len(sessions) == 1  # whoever stays goes on
        stays.close()
        wait(lambda: not sessions and len(studio.shelf) == 0 and not outs())
    finally:
        page.close()


def test_recordings_go_with_their_last_holder_or_by_their_age(tiny):
    studio = Studio([tiny])
    first, second = Session(studio), Session(studio)
    for session in (first, second):
        session.generate(SOURCE, 0, 2)
    shelf = studio.shelf
    assert len(shelf) == 1
    del session, first
    gc.collect()
    assert shelf.tidy() == 0
    del second
    gc.collect()
    assert shelf.tidy() == 1 and len(shelf) == 0
    Session(studio, passing=True).generate(SOURCE, 0, 2)  # a call's stays for the next call, until it is idle
    gc.collect()
    assert shelf.tidy() == 0 and len(shelf) == 1
    shelf.idle = 0
    assert shelf.tidy() == 1
    assert Shelf(10, 0).tidy() == 0


def test_the_images_of_a_visitor_are_bounded_by_bytes(tiny):
    studio = Studio([tiny])
    session = Session(studio)
    session.generate(SOURCE, 0, 2)
    size = session.edit(Form(TARGET)).bytes
    assert size > session.shown.pixels.nbytes
    session.tree.room = 4 * size
    for _ in range(8):
        session.edit(Form(TARGET))
    assert sum(node.bytes for node in session.tree.nodes.values()) <= session.tree.room and len(session.tree.nodes) > 2
    session.tree.room = 0
    session.edit(Form(TARGET))
    assert set(session.tree.nodes) == {1, session.tree.shown}  # the image on the page, and what it was edited from
    for _ in range(300):
        session.go(1)
    assert len(session.tree.past) <= 4 * session.tree.most


def test_weight_counts_each_tensor_once():
    import numpy as np
    import torch

    one = torch.zeros(100)
    assert weight([one, one[:10], {"a": (one,)}]) == 400
    assert weight((np.zeros(10), "text", 3, torch.nn.Linear(9, 9))) == 80


def test_files_are_bounded_by_age_and_bytes(tmp_path):
    def put(name: str, age: float, size: int = 10) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        return path

    lock, kept = put(LOCK, 0), put("out-kept/a.png", 0)
    old = put("hash/old.png", 0)
    time.sleep(0.3)
    new, newer = put("other/new.png", 0), put("other/newer.png", 0)
    assert trim(tmp_path, 10**6, 0.2, {tmp_path / "out-kept"}) == {str(old)}
    assert not old.parent.exists() and kept.exists() and lock.exists() and new.exists()
    os.utime(new)
    assert trim(tmp_path, 25, 100, {tmp_path / "out-kept"}) == {str(newer)}  # the one that was used last stays
    assert new.exists()
    assert trim(tmp_path, 0, 100) == {str(new), str(kept)}
    assert list(tmp_path.iterdir()) == [lock]


def test_folders_of_killed_servers_are_removed(tmp_path):
    for name in ("killed", "alive", "young", "old", "other"):
        (tmp_path / f"promptweave-page-{name}").mkdir()
    for name in ("killed", "alive"):
        (tmp_path / f"promptweave-page-{name}" / LOCK).touch()
    os.utime(tmp_path / "promptweave-page-old", (0, time.time() - OLD - 10))
    (tmp_path / "promptweave-page-link").symlink_to(tmp_path / "promptweave-page-other")
    (tmp_path / "promptweave-page-file").touch()
    with (tmp_path / "promptweave-page-alive" / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        gone = remove_left(tmp_path)
    assert {path.name.rpartition("-")[2] for path in gone} == {"killed", "old"}
    assert len(list(tmp_path.iterdir())) == 5


def test_the_folder_is_the_owners_alone_and_locked():
    folder = page_folder()
    assert folder.stat().st_mode & 0o077 == 0 and os.environ["GRADIO_TEMP_DIR"] == str(folder)
    assert folder not in remove_left(folder.parent) and folder.is_dir()


def test_downloads_go_with_their_holder():
    outbox = Outbox()
    session = type("Holder", (), {})()
    made = [outbox.folder(session) for _ in range(LAST + 2)]
    assert [path.is_dir() for path in made] == [False] * 2 + [True] * LAST and outbox.kept == set(made[2:])
    loose = outbox.folder()
    del session
    gc.collect()
    assert not any(path.exists() for path in made) and loose.is_dir() and not outbox.kept
    loose.rmdir()


def test_who_is_there():
    presence = Presence()
    presence.come("a")
    presence.come("a")  # a second connection, before the first is seen to end
    presence.leave("a")
    assert presence.away("a") == 0
    presence.leave("a")
    assert presence.away("b") == 0 or presence.away("b") < 1
    time.sleep(0.02)
    assert presence.away("a") >= 0.02 and presence.away("b") >= 0.02
    presence.come("a")
    assert presence.away("a") == 0 and len(presence) == 1
    presence.forget_all_but({"a"})
    assert presence.away("b") < 0.02


def test_the_limits_are_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "web_page.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `--")]
    shown = {
        flag.strip(" `"): default.strip()
        for row in rows
        for flag, default in zip(row[1].split(","), row[2].split(","), strict=False)
    }
    for listed in options_of(Limits):
        assert shown[listed.flag] == str(listed.default), listed.flag

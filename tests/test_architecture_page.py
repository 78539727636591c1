"""docs/architecture.md names files and functions that exist and every room, and its drawing is that of today."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest
from test_layers import MODULES, ROOMS

HERE = Path(__file__).parents[1]
SOURCE = HERE / "src" / "promptweave"
PAGE = (HERE / "docs" / "architecture.md").read_text()
QUOTED = sorted(set(re.findall(r"`([^`]+)`", PAGE)))


def defined() -> set[str]:
    """Names of classes, functions and annotated fields anywhere in the sources, members also as Class.member."""
    found: set[str] = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                inner = [n for n in node.body if isinstance(n, ast.FunctionDef)]
                own = {n.name for n in inner} | {
                    n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
                }
                found |= {node.name, *own, *(f"{node.name}.{name}" for name in own)}
            elif isinstance(node, ast.FunctionDef):
                found.add(node.name)
    return found


DEFINED = defined()


def has(owner: object, name: str) -> bool:
    annotated = getattr(owner, "__annotations__", {})
    return (
        hasattr(owner, name) or name in annotated or (is_dataclass(owner) and name in {f.name for f in fields(owner)})
    )


def exists(quoted: str) -> bool:
    """Whether a file, folder, function, class or field of this name is there."""
    if "/" in quoted or quoted.endswith(".py"):
        return any((root / quoted).exists() for root in (HERE, SOURCE, SOURCE.parent))
    first, _, rest = quoted.partition(".")
    if first == "pw" or (first in ROOMS and rest):
        owner: object = import_module("promptweave")
        for name in quoted.removeprefix("pw.").split("."):
            if not has(owner, name):
                try:
                    owner = import_module(f"{getattr(owner, '__name__', '')}.{name}")
                except ImportError:
                    return False
            else:
                owner = getattr(owner, name, None)
        return True
    return quoted in ROOMS or quoted in DEFINED or any(quoted == path.stem for path in MODULES)


@pytest.mark.parametrize("quoted", QUOTED)
def test_what_the_page_names_exists(quoted: str) -> None:
    if quoted == "promptweave bench" or quoted == "commands_":
        assert list((SOURCE / "apps").glob("commands_bench.py"))
        return
    assert exists(quoted), f"docs/architecture.md names {quoted}, which is not there."


def test_a_name_that_is_not_there_is_found() -> None:
    for wrong in ("core/patterns.py", "sampling.walk.run", "Hooks.nothing", "core.rows.Layout.last", "pw.nothing"):
        assert not exists(wrong), wrong
    for right in ("core/pattern.py", "sampling.walk.walk", "Hooks.condition", "core.rows.Layout.first", "pw.edit"):
        assert exists(right), right


def test_every_room_has_its_line() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.M) and set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M)) == set(ROOMS)


def test_the_links_of_the_page_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert "pictures/rooms.webp" in links
    for link in links:
        assert (HERE / "docs" / link).exists(), link


def test_the_drawing_shows_the_rooms_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arrows are those of ROOMS that no others imply, each goes down, and the committed file is what is drawn."""
    monkeypatch.syspath_prepend(str(HERE / "docs" / "pictures"))
    drawing = import_module("rooms")
    monkeypatch.delitem(sys.modules, "rooms")
    arrows = {room: {other.split(".")[0] for other in others} for room, others in ROOMS.items()}
    assert drawing.allowed() == ROOMS
    drawn, level = drawing.needed(arrows), drawing.floors(arrows)
    assert all(level[room] > level[other] for room, other in drawn)
    reached = {room: {other for start, other in drawn if start == room} for room in ROOMS}
    for room in ROOMS:  # the lowest come first
        reached[room] |= {far for other in reached[room] for far in reached[other]}
    assert all(arrows[room] <= reached[room] for room in ROOMS)

    import numpy as np
    from PIL import Image

    with Image.open(HERE / "docs" / "pictures" / "rooms.webp") as kept:
        shown = np.asarray(kept.convert("RGB"), dtype=float)
    made = np.asarray(drawing.rooms(), dtype=float)
    assert shown.shape == made.shape and np.abs(shown - made).mean() < 2, "Run docs/pictures/make.py rooms."

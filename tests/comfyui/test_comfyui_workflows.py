"""The nodes for ComfyUI as ComfyUI lists them, and the workflows that come with them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import miniature
import pytest

nodes = miniature.pack.nodes


@pytest.fixture(autouse=True)
def comfyui(monkeypatch: pytest.MonkeyPatch) -> None:
    miniature.install(monkeypatch)


def widgets(kind: Any) -> list[str]:
    """The names of a node's fields in the order of `widgets_values`."""
    found: list[str] = []
    for group in kind.INPUT_TYPES().values():
        for name, (sort, *more) in group.items():
            if isinstance(sort, list) or sort in ("STRING", "INT", "FLOAT", "BOOLEAN"):
                found += [name, "control"] if more and more[0].get("control_after_generate") else [name]
    return found


def test_the_nodes_are_as_comfyui_wants_them() -> None:
    assert set(nodes.NODE_CLASS_MAPPINGS) == set(nodes.NODE_DISPLAY_NAME_MAPPINGS)
    for kind in nodes.NODE_CLASS_MAPPINGS.values():
        given, taken = kind.INPUT_TYPES(), inspect.signature(getattr(kind, kind.FUNCTION)).parameters
        names = {name for group in given.values() for name in group}
        spread = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
        assert names >= set(taken) - {"self", "values"} and (spread or names == set(taken) - {"self"})
        assert all(taken[name].default is None for name in given.get("optional", {}))
        assert len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES) and kind.CATEGORY and kind.DESCRIPTION


@pytest.mark.parametrize(
    "path", sorted((miniature.PACK / "example_workflows").glob("*.json")), ids=lambda path: path.stem
)
def test_example_workflows_fit_the_nodes(path: Path) -> None:
    made = json.loads(path.read_text())
    by_number = {node["id"]: node for node in made["nodes"]}
    known = nodes.NODE_CLASS_MAPPINGS
    for node in made["nodes"]:
        kind = known.get(node["type"])
        if kind is None:
            assert not node["type"].startswith("Promptweave")
            continue
        sockets = {name: sort for group in kind.INPUT_TYPES().values() for name, (sort, *_) in group.items()}
        assert all(sockets[one["name"]] == one["type"] for one in node["inputs"])
        assert [one["type"] for one in node["outputs"]] == list(kind.RETURN_TYPES)
        assert [one["name"] for one in node["outputs"]] == list(kind.RETURN_NAMES)
        assert len(node["widgets_values"]) == len(widgets(kind))
        needed = {name for name, sort in sockets.items() if isinstance(sort, str) and sort.isupper()} - set(
            widgets(kind)
        )
        wired = {one["name"] for one in node["inputs"] if one["link"] is not None}
        assert needed - set(kind.INPUT_TYPES().get("optional", {})) <= wired
    for number, a, out, b, into, sort in made["links"]:
        assert by_number[a]["outputs"][out]["type"] == by_number[b]["inputs"][into]["type"] == sort
        assert number in by_number[a]["outputs"][out]["links"] and by_number[b]["inputs"][into]["link"] == number

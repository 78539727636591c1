"""The arrows between the packages, read from the imports: dependencies point downwards only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "promptweave"
MODULES = sorted(ROOT.rglob("*.py"))

# The rooms, lowest first, and what each may import of ours, itself aside; lazy imports count. `models.base` is the
# protocol of a network, all that most rooms see of `models`.
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "evaluate": {"core"},
    "view": set(),
    "words": {"core"},
    "methods": {"core", "words"},
    "models": {"core", "words"},
    "sampling": {"core", "models.base", "models.copies"},
    "inversion": {"core", "models.base", "sampling"},
    "editing": {"core", "words", "methods", "models", "sampling", "inversion", "evaluate", "view"},
    "maps": {"core", "words", "models", "sampling", "editing", "view"},
    "world": {"core", "models", "sampling", "view"},
    "finding": {"core", "words", "methods", "models", "sampling", "inversion", "editing", "evaluate", "view", "world"},
    "perception": {"core", "models", "editing", "maps", "view", "evaluate", "world"},
    "translation": {"core", "models", "sampling", "editing", "view", "world"},
    "benchmarks": {
        "core", "words", "methods", "models", "sampling", "editing", "maps", "world", "perception", "translation",
        "evaluate", "view", "finding",
    },
    "apps": {
        "core", "words", "methods", "models", "sampling", "editing", "maps", "benchmarks", "world", "perception",
        "translation", "view", "finding",
    },
}  # fmt: skip
ROOT_MODULES = {"__init__.py", "__main__.py"}
BUILDERS = ("train", "build")  # modules of the world that make networks, and so import diffusers
PURE = {"torch", "jaxtyping", "numpy"}  # all that core, words and methods may import from others
NETWORKS = {"diffusers", "transformers"}  # only models and world/train*.py
EXTRAS = {
    "cyclopts",
    "rich",
    "spacy",
    "ray",
    "gradio",
    "matplotlib",
    "av",
    "pyarrow",
    "torchmetrics",
}  # only apps, or inside a function


def imports(tree: ast.AST, module: str) -> Iterator[tuple[str, ast.stmt]]:
    """Absolute dotted names that the tree imports; `from promptweave import core` gives promptweave.core."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")[: -node.level]
                base = ".".join([*parts, base] if base else parts)
            if base == "promptweave":
                for alias in node.names:
                    yield f"promptweave.{alias.name}", node
            else:
                yield base, node


def dotted(path: Path) -> str:
    """The module's name, with `__init__` kept so that relative imports resolve."""
    return ".".join(["promptweave", *path.relative_to(ROOT).with_suffix("").parts])


def allowed(path: Path, target: str) -> bool:
    """May the module at `path` import `target`, a dotted name without "promptweave"?"""
    room = path.relative_to(ROOT).parts[0]
    if room in ROOT_MODULES or target.split(".")[0] == room:
        return True
    return any(target == arrow or target.startswith(arrow + ".") for arrow in ROOMS[room])


def builds(path: Path) -> bool:
    return path.parent == ROOT / "world" and path.name.startswith(BUILDERS)


def at_top(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported: not the bodies of functions, nor of `if TYPE_CHECKING`."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        yield node
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                todo.append(child)
            elif isinstance(child, ast.ExceptHandler | ast.match_case):
                todo += child.body


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_downwards(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    if len(parts) == 1:
        assert parts[0] in ROOT_MODULES, f"{parts[0]} stands in the root: put it into a room."
    else:
        assert parts[0] in ROOMS, f"{parts[0]} is a new room: give it a line in ROOMS."
    for name, node in imports(ast.parse(path.read_text()), dotted(path)):
        top, _, rest = name.partition(".")
        where = f"{path.relative_to(ROOT)}:{node.lineno} imports {name}"
        if top == "promptweave" and rest:
            if (ROOT / rest.split(".")[0]).is_dir():
                assert allowed(path, rest), f"{where}, which {parts[0]} may not."
            else:
                assert len(parts) == 1 or rest == "__version__", f"{where}: import the room that defines it."
        elif parts[0] in ("core", "words", "methods"):
            assert top in PURE or top in sys.stdlib_module_names, f"{where}: {parts[0]} imports {sorted(PURE)} only."
        elif top in NETWORKS:
            assert parts[0] in ("models", "benchmarks") or builds(path), f"{where}: only models and builders may."


def test_the_rooms_make_no_circle() -> None:
    """Every arrow goes to a room that stands before its own, and every arrow in the list is in use."""
    order = list(ROOMS)
    for room, arrows in ROOMS.items():
        for arrow in arrows:
            assert order.index(arrow.split(".")[0]) < order.index(room), f"{room} -> {arrow} points upwards."
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in MODULES:
        room = path.relative_to(ROOT).parts[0]
        for name, _ in imports(ast.parse(path.read_text()), dotted(path)) if room in ROOMS else ():
            used[room].add(name.removeprefix("promptweave.").split(".")[0] if name.startswith("promptweave.") else "")
    for room, arrows in ROOMS.items():
        unused = {arrow for arrow in arrows if arrow.split(".")[0] not in used[room]}
        assert not unused, f"{room} does not import {unused}: take the arrow out of ROOMS."


def test_a_module_has_a_name_of_its_own() -> None:
    """One name, one meaning, room names included; `__init__` and the worlds of the web page aside."""
    names = [path.stem for path in MODULES if not path.stem.startswith("__") and "web" not in path.parts]
    twice = {name for name in names if names.count(name) > 1 or name in ROOMS}
    assert not twice, f"Modules of the same name: {sorted(twice)}."


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_extras_are_imported_where_they_are_used(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] == "apps":
        return
    for node in at_top(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name, _ in imports(ast.Module([node], []), dotted(path)):
                assert name.split(".")[0] not in EXTRAS, f"{path.name}:{node.lineno} imports {name} at the top."


def test_the_reader_of_imports_sees_them() -> None:
    lines = [
        "import torch.nn", "from promptweave import core", "from ..words import Words", "from . import x",
        "def f():", "    import gradio", "if TYPE_CHECKING:", "    import rich",
        "try:", "    import spacy", "except ImportError:", "    import ray",
    ]  # fmt: skip
    tree = ast.parse("\n".join(lines))
    names = [name for name, _ in imports(tree, "promptweave.methods.some")]
    assert names[:4] == ["torch.nn", "promptweave.core", "promptweave.words", "promptweave.methods"]
    top = {name for node in at_top(tree) if isinstance(node, ast.Import) for name, _ in imports(node, "promptweave.x")}
    assert top == {"torch.nn", "spacy", "ray"}
    assert allowed(ROOT / "sampling" / "loop.py", "models.base")
    assert not allowed(ROOT / "sampling" / "loop.py", "models.unet")
    assert not allowed(ROOT / "core" / "rows.py", "words.tokens")
    assert not allowed(ROOT / "editing" / "edit.py", "apps.cli")
    assert allowed(ROOT / "editing" / "edit.py", "methods.masactrl")
    assert not allowed(ROOT / "editing" / "result.py", "maps.html_report")
    assert builds(ROOT / "world" / "train.py") and not builds(ROOT / "world" / "scene.py")


def test_importing_the_package_is_light_and_warns_of_nothing() -> None:
    """No warning, and none of the extras, when `import promptweave` is all that a program does."""
    code = f"import sys, promptweave; print(sorted({EXTRAS!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT.parent, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_names_of_the_package_are_those_it_declares() -> None:
    """What type checkers read in `promptweave/__init__.py` is what a program gets, and `dir` lists it."""
    import promptweave

    (block,) = [node for node in ast.parse((ROOT / "__init__.py").read_text()).body if isinstance(node, ast.If)]
    said = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert len(said) > 40 and set(said) <= set(dir(promptweave))
    for name, module in said.items():
        assert getattr(promptweave, name) is getattr(import_module(str(module)), name)
    listed = {name for name in dir(promptweave) if not name.startswith("_")}
    assert {name for name in listed if name in promptweave._PLACES} <= set(said)
    assert promptweave.editing is import_module("promptweave.editing")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        promptweave.nothing  # noqa: B018

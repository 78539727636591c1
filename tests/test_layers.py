"""The arrows between the packages, read from the imports: dependencies point downwards only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "promptweave"
MODULES = sorted(ROOT.rglob("*.py"))

# What each package may import of ours, itself aside.
ARROWS: dict[str, set[str]] = {
    "core": set(),
    "words": {"core"},
    "methods": {"core", "words"},
    "models": {"core", "words"},
    "sampling": {"core", "models.base"},
    "inversion": {"core", "models.base", "sampling"},
    "perception": {"core", "models.base"},
    "translation": {"core", "models.base"},
    "view": {"core"},
    "evaluate": set(),
    "world": {"core", "words", "evaluate"},
}
TRAINING = {"models", "sampling", "view"}  # what world/train*.py import on top: they build networks and show samples
PURE = {"torch", "jaxtyping", "numpy"}  # all that core, words and methods may import from others
NETWORKS = {"diffusers", "transformers"}  # only models and world/train*.py
EXTRAS = {"typer", "rich", "spacy", "ray", "gradio", "matplotlib", "av"}  # only apps, or inside a function


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
    parts = path.relative_to(ROOT).parts
    head = target.split(".")[0]
    if head == "apps":
        return parts[0] in ("apps", "__main__.py")
    if len(parts) == 1 or parts[0] in ("apps", head):
        return True
    arrows = ARROWS[parts[0]] | (TRAINING if is_training(path) else set())
    return any(target == arrow or target.startswith(arrow + ".") for arrow in arrows)


def is_training(path: Path) -> bool:
    return path.parent == ROOT / "world" and path.name.startswith("train")


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
    assert len(parts) == 1 or parts[0] in {*ARROWS, "apps"}, f"{parts[0]} is a new package: give it a line in ARROWS."
    module = dotted(path)
    for name, node in imports(ast.parse(path.read_text()), module):
        top, _, rest = name.partition(".")
        where = f"{path.relative_to(ROOT)}:{node.lineno} imports {name}"
        if top == "promptweave":
            # a name of the package's root, such as __version__, is no arrow to a package
            is_module = (ROOT / rest.split(".")[0]).is_dir() or (ROOT / (rest.split(".")[0] + ".py")).exists()
            assert not (rest and is_module) or allowed(path, rest), f"{where}, which {parts[0]} may not."
            assert len(parts) == 1 or parts[0] == "apps" or is_module, f"{where}: import the package that defines it."
        elif parts[0] in ("core", "words", "methods"):
            assert top in PURE or top in sys.stdlib_module_names, f"{where}: {parts[0]} imports {sorted(PURE)} only."
        elif top in NETWORKS:
            assert parts[0] == "models" or is_training(path), f"{where}: only models and world/train*.py may."


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
        "def f():", "    import typer", "if TYPE_CHECKING:", "    import rich",
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
    assert not allowed(ROOT / "edit.py", "apps.cli") and allowed(ROOT / "edit.py", "methods.masactrl")
    assert allowed(ROOT / "world" / "train.py", "models.build") and not allowed(
        ROOT / "world" / "scene.py", "models.build"
    )


def test_importing_the_package_is_light_and_warns_of_nothing() -> None:
    """No warning, and none of the extras, when `import promptweave` is all that a program does."""
    code = f"import sys, promptweave; print(sorted({EXTRAS!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT.parent, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"

"""The documentation: links lead somewhere, commands and calls have the options shown, errors are listed."""

from __future__ import annotations

import ast
import re
import shlex
from importlib import import_module
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import promptweave as pw
from promptweave.core.fields import options_of
from promptweave.inversion import KNOWN
from promptweave.maps.segmentation import Segmenting

HERE = Path(__file__).parents[1]
ROOT_PAGES = [HERE / name for name in ("README.md", "changelog.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = [*ROOT_PAGES, *sorted((HERE / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    found = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def broken(page: Path) -> list[str]:
    wrong: list[str] = []
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HERE)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](#one) [b](#two) [c](none.md) [d](https://example.org)\n```\n[e](code.md)\n```\n")
    assert broken(page) == ["#two", "none.md"]


def test_the_examples_are_all_shown() -> None:
    page = HERE / "docs" / "examples.md"
    assert {path.name for path in (HERE / "examples").glob("*.py")} == {
        Path(link).name for link in LINK.findall(page.read_text()) if link.endswith(".py")
    }


def test_the_site_is_laid_out_with_links_that_lead_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but what Sphinx itself does, which takes a minute: `make docs`."""
    monkeypatch.syspath_prepend(str(HERE / "docs" / "site"))
    lay_out, public = import_module("make_site").lay_out, import_module("api_pages").public
    lay_out(tmp_path)
    pages = sorted(tmp_path.rglob("*.md"))
    for page in pages:
        page.write_text(re.sub(r"\]\(/", f"]({tmp_path}/", page.read_text()))
    assert [(page.name, wrong) for page in pages if (wrong := broken(page))] == []
    listed = set(re.findall(r"^/([\w/]+)$", "".join(page.read_text() for page in pages), re.M))
    assert {str(page.relative_to(tmp_path).with_suffix("")) for page in pages} - {"index"} == listed
    shown = "".join(page.read_text() for page in (tmp_path / "reference").glob("*.md"))
    assert len(public()) > 60 and all(f"}} promptweave.{name}(" in shown for name in public())
    assert {f"inversion.{kind.__name__}" for kind in KNOWN.values()} < set(public()) and len(KNOWN) > 12
    assert all(kind.__doc__ and f'`inversion="{name}"`' in shown for name, kind in KNOWN.items())


def test_one_command_makes_every_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make pictures`: each file is named by what makes it, and the commands of figures have their options."""
    from promptweave.apps.cli import build

    folder = HERE / "docs" / "pictures"
    monkeypatch.syspath_prepend(str(folder))
    figures = import_module("figures").FIGURES
    makers = [*folder.glob("*.py"), *(HERE / "tests" / "apps").glob("test_web*.py")]
    named = set(re.findall(r'"([\w-]+)(?:\.webp)?"', "".join(path.read_text() for path in makers)))
    named |= {f"page-{name}" for name in named}  # of the page in other looks
    named |= {Path(name).stem for figure in figures.values() for name in figure.files.values()}
    shown = {path.stem for path in folder.iterdir() if path.suffix in (".webp", ".svg", ".csv")}
    # Written under these names by `bench edits`; and taken in ComfyUI, which comfyui/development/picture.py needs.
    assert {name for name in shown - named if not name.startswith("edits-")} == {"comfyui"}
    for figure in figures.values():
        if figure.command[0] == "promptweave":
            build().parse_args(figure.command[1:], exit_on_error=False, print_error=False)


def test_a_picture_is_written_where_it_changed_and_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(HERE / "docs" / "pictures"))
    kept, path = import_module("kept"), tmp_path / "a.webp"
    pixels = np.linspace(60, 200, 16 * 24, dtype=np.uint8).reshape(16, 24, 1).repeat(3, 2)
    assert kept.put(Image.fromarray(pixels), path) and not kept.put(Image.fromarray(pixels + np.uint8(1)), path)
    assert kept.put(Image.fromarray(pixels[::-1]), path) and kept.put(Image.fromarray(pixels[:8]), path)
    monkeypatch.setattr(kept, "DONE", tmp_path / "out" / "pictures.json")
    first = kept.Progress("code")
    first.note("hat")
    assert kept.Progress("code").has("hat") and not first.has("demo") and not kept.Progress("other").has("hat")
    assert len(kept.fingerprint()) == 64


def test_the_index_links_every_page() -> None:
    index = HERE / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(prose(index))}
    assert {page for page in PAGES if page.parent != HERE and page != index} <= linked


def blocks(page: Path, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("promptweave ")]


COMMANDS = {page: found for page in PAGES if (found := commands(page))}


@pytest.mark.parametrize("page", COMMANDS, ids=lambda page: str(page.relative_to(HERE)))
def test_every_command_that_is_shown_has_its_options(page: Path) -> None:
    from promptweave.apps.cli import build

    app = build()
    for line in COMMANDS[page]:
        app.parse_args(shlex.split(line, comments=True)[1:], exit_on_error=False, print_error=False)


def test_a_command_with_a_mistyped_option_is_found() -> None:
    from cyclopts import CycloptsError

    from promptweave.apps.cli import build

    assert sum(map(len, COMMANDS.values())) > 50
    with pytest.raises(CycloptsError):
        build().parse_args(["edit", "a", "b", "--croos", "0.5"], exit_on_error=False, print_error=False)


def wrong_calls(code: str) -> list[str]:
    """Names of `pw` that are not there, and keywords that `pw.edit` or a control does not take."""
    wrong: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pw":
            wrong += [] if hasattr(pw, node.attr) else [node.attr]
        if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("pw.")):
            continue
        called = getattr(pw, ast.unparse(node.func).split(".")[1], None)
        if called is None or ast.unparse(node.func).count(".") > 1 or called is pw.NoEffect:
            continue
        taken = set(signature(called).parameters)
        if "options" in taken:
            taken |= {
                option.name for kind in (pw.PromptToPrompt, pw.Settings, Segmenting) for option in options_of(kind)
            }
        wrong += [f"{called.__name__}({key.arg}=)" for key in node.keywords if key.arg and key.arg not in taken]
    return wrong


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: str(page.relative_to(HERE))
)
def test_every_call_that_is_shown_has_its_parameters(page: Path) -> None:
    assert [wrong for code in blocks(page, "python") for wrong in wrong_calls(code)] == []


def test_a_call_with_a_mistyped_parameter_is_found() -> None:
    code = "pw.edit(a, b, croos=1)\npw.Nothing()\npw.Replace(crossing=1)\npw.generate(a, steps=3)"
    assert sorted(wrong_calls(code)) == ["Nothing", "Replace(crossing=)", "edit(croos=)"]


def test_every_error_has_its_line() -> None:
    """Those that a person can meet; the others end a pass or a run inside the library."""
    defined: dict[str, set[str]] = {}
    for path in (HERE / "src" / "promptweave").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                defined[node.name] = {ast.unparse(base) for base in node.bases}
    ours = {name for name, bases in defined.items() if bases & {"ValueError", "ImportError", "RuntimeError", "OSError"}}
    listed = set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", (HERE / "docs/errors.md").read_text(), re.M)))
    )
    assert {"WordNotFound", "Unread", "NoCommand"} <= ours
    assert ours <= listed and listed - ours == {"TypeError", "FileExistsError"}

"""What a wheel and an sdist would hold, and what a package index would show; nothing is compressed or written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hatchling.builders.plugin.interface import BuilderInterface
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.metadata import Metadata
from readme_renderer.markdown import render

import promptweave as pw

HERE = Path(__file__).parents[1]
ADDRESS = "https://example.org/somebody/promptweave"
INDEX_LIMIT = 100 << 20  # bytes of a file that indexes take without asking


def held(builder: BuilderInterface) -> dict[str, int]:
    """The files of an archive and their sizes."""
    return {file.distribution_path: Path(file.path).stat().st_size for file in builder.recurse_included_files()}


def described(monkeypatch: pytest.MonkeyPatch, address: str | None) -> Metadata:
    """The metadata, by the rules of package indexes; `validate` raises for what they refuse."""
    monkeypatch.delenv("PROMPTWEAVE_REPOSITORY", raising=False)
    if address:
        monkeypatch.setenv("PROMPTWEAVE_REPOSITORY", address)
    builder = WheelBuilder(str(HERE))
    return Metadata.from_email(builder.config.core_metadata_constructor(builder.metadata), validate=True)


def test_the_wheel_holds_package_and_weights_and_nothing_else() -> None:
    files = held(WheelBuilder(str(HERE)))
    assert all(name.startswith("promptweave/") and "__pycache__" not in name for name in files)
    wanted = {path.relative_to(HERE / "src").as_posix() for path in (HERE / "src").rglob("*.py")}
    wanted |= {f"promptweave/docs/methods/{path.name}" for path in (HERE / "docs" / "methods").glob("*.md")}
    assert wanted | {"promptweave/py.typed", "promptweave/models/toybox/model_index.json"} <= set(files)
    weights = {name: size for name, size in files.items() if name.endswith(".safetensors")}
    assert {name.split("/")[2] for name in weights if "/models/" in name} == {"toybox", "toybox-fast", "toybox-dit"}
    assert min(weights.values()) > 100_000 and sum(files.values()) < INDEX_LIMIT


def test_the_sdist_builds_tests_and_documents_itself() -> None:
    files = held(SdistBuilder(str(HERE)))
    for name in (
        "hatch_build.py",
        "Makefile",
        "README.md",
        "LICENSE",
        "tests/conftest.py",
        "docs/index.md",
        "docs/site",
    ):
        assert any(file == name or file.startswith(f"{name}/") for file in files), name
    assert not [name for name in files if re.search(r"__pycache__|^out/|^runs/|\.venv|\.pytest_cache", name)]
    assert sum(files.values()) < INDEX_LIMIT


@pytest.mark.parametrize("address", [None, ADDRESS])
def test_an_index_shows_the_description(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    found = described(monkeypatch, address)
    assert str(found.version) == pw.__version__ and found.author == "promptweave maintainers"
    assert found.description and render(found.description)
    shown = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", found.description)
    assert [link for _, link in shown if not link.startswith(("https://", "#"))] == []
    images = [link for image, link in shown if image]
    if address is None:
        assert images == [] and not found.project_urls
        return
    assert images and all(re.sub(rf"^{address}/raw/v[\d.]+/", "", link) != link for link in images)
    assert all((HERE / link.split(f"/v{pw.__version__}/")[1]).is_file() for link in images)
    assert found.project_urls and all(value.startswith(address) for value in found.project_urls.values())


def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="https address"):
        described(monkeypatch, "promptweave.git")


def test_citation_and_issue_forms_can_be_read() -> None:
    cited = yaml.safe_load((HERE / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited) and cited["version"] == pw.__version__
    assert cited["license"] == "Apache-2.0"
    for form in sorted((HERE / ".github/ISSUE_TEMPLATE").glob("*.yml")):
        read = yaml.safe_load(form.read_text())
        if form.stem != "config":
            assert {"name", "description", "body"} <= set(read)
            assert all(
                part["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"} for part in read["body"]
            )

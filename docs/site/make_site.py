"""Build the site from docs/, the examples and the docstrings: `make docs`, or `python docs/site/make_site.py out/site`.

Pages are taken as they are, in the order and under the headings of docs/index.md. Added to them are the changelog, how
to contribute, the notebook, a page for the code of each example, and the reference.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from api_pages import reference

HERE = Path(__file__).parent
DOCS, ROOT = HERE.parent, HERE.parents[1]
SECTION = re.compile(r"^\*\*(.+)\*\*$", re.M)
LINK = re.compile(r"\]\((?!https?:)([^)\s#]+\.md)[^)]*\)")
CHOICE = re.compile(r"^## Which method when\n.*?(?=^## )", re.S | re.M)
MOVED = (  # where links lead that leave docs/, or lead to a notebook
    (re.compile(r"\]\((?:\.\./)*changelog\.md"), "](/changelog.md"),
    (re.compile(r"\]\((?:\.\./)*CONTRIBUTING\.md"), "](/contributing.md"),
    (re.compile(r"\]\((?:\.\./)*SECURITY\.md"), "](/security.md"),
    (re.compile(r"\]\((?:\.\./)+examples/(\w+)\.py"), r"](/examples/\1.md"),
    (re.compile(r"\]\((/?)tour\.ipynb"), r"](\1tour.md"),
)


def moved(text: str) -> str:
    """A page, its links as they are on the site."""
    for pattern, place in MOVED:
        text = pattern.sub(place, text)
    return text


def notebook(path: Path, pictures: Path) -> str:
    """A notebook as a page; its images are written to the folder `pictures`."""
    parts: list[str] = []
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            kind = next((kind for kind in output.get("data", {}) if kind.startswith("image/")), None)
            if kind:
                file = pictures / f"{path.stem}-{number}.{kind[6:]}"
                file.write_bytes(base64.b64decode("".join(output["data"][kind])))
                parts.append(f"![output of the cell above]({pictures.name}/{file.name})")
            elif output["output_type"] == "stream":
                parts.append("```\n" + "".join(output["text"]) + "```")
    return "\n\n".join(parts) + "\n"


def example(path: Path) -> str:
    """The page of an example: what it shows, and its code."""
    code = path.read_text()
    said = re.findall(r'^"""(.*?)"""', code, re.S)[0]
    return f"# {path.stem.replace('_', ' ')}\n\n{said}\n\n```python\n{code}```\n"


def contents(index: str, more: dict[str, list[str]]) -> str:
    """The hidden tables of contents that give the site its sidebar: a part for each bold heading of the index."""
    heads = list(SECTION.finditer(index))
    trees: list[str] = []
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        part = index[head.end() : following.start() if following else None]
        pages = [*LINK.findall(part), *more.get(head[1], [])]
        listed = "\n".join(f"/{page.removeprefix('/').removesuffix('.md')}" for page in pages)
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {head[1]}\n\n{listed}\n```")
    return "\n\n".join(trees) + "\n"


def lay_out(folder: Path) -> None:
    """Write the sources of the site to an empty folder."""
    for page in DOCS.rglob("*.md"):
        target = folder / page.relative_to(DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(moved(page.read_text()))
    shutil.copytree(DOCS / "pictures", folder / "pictures", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for file in DOCS.glob("*.jsonl"):
        shutil.copy(file, folder)
    for name in ("changelog.md", "CONTRIBUTING.md"):
        (folder / name.lower()).write_text(moved((ROOT / name).read_text().replace("](docs/", "](")))
    (folder / "tour.md").write_text(moved(notebook(DOCS / "tour.ipynb", folder / "pictures")))
    (folder / "examples").mkdir()
    scripts = sorted((ROOT / "examples").glob("*.py"))
    for path in scripts:
        (folder / "examples" / f"{path.stem}.md").write_text(example(path))
    pages = reference()
    (folder / "reference").mkdir()
    for name, text in pages.items():
        (folder / "reference" / f"{name}.md").write_text(text)
    hidden = "\n".join(f"/examples/{path.stem}" for path in scripts)
    with (folder / "examples.md").open("a") as file:
        file.write(f"\n```{{toctree}}\n:hidden:\n\n{hidden}\n```\n")
    index, choice = (folder / "index.md").read_text(), CHOICE.findall((ROOT / "README.md").read_text())[0]
    with (folder / "index.md").open("a") as file:
        file.write(
            "\n"
            + choice.replace("](docs/", "](")
            + contents(index, {"Reference": [f"reference/{name}.md" for name in pages]})
        )


def main() -> None:
    """Build the site; a warning of Sphinx, such as a link that leads nowhere, is an error."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/site")
    with tempfile.TemporaryDirectory() as source:
        lay_out(Path(source))
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-c", str(HERE), source, str(out)]
        subprocess.run(command, check=True)
    print(f"wrote {out / 'index.html'}")


if __name__ == "__main__":
    main()

"""The description and the addresses that a package index shows: README.md with absolute links.

`PROMPTWEAVE_REPOSITORY=https://github.com/owner/name` at build time makes the images and links of README.md absolute
and adds the project's URLs. Without it nothing false is written: images are left out, and relative links become text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

VARIABLE = "PROMPTWEAVE_REPOSITORY"
IMAGE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)\s]+)\)\n*")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)")


def described(readme: str, repository: str | None, version: str) -> str:
    """The README as an index shows it, whose links must work away from the repository."""
    if repository is None:
        return LINK.sub(r"\1", IMAGE.sub("", readme))
    images, pages = (f"{repository}/{kind}/v{version}" for kind in ("raw", "blob"))
    readme = IMAGE.sub(lambda found: f"![{found[1]}]({images}/{found[2]})\n\n", readme)
    return LINK.sub(lambda found: f"[{found[1]}]({pages}/{found[2]})", readme)


def urls(repository: str | None) -> dict[str, str]:
    """The addresses that the index lists."""
    if repository is None:
        return {}
    pages = {"Documentation": "blob/main/docs/index.md", "Changelog": "blob/main/changelog.md", "Issues": "issues"}
    return {"Source": repository, **{name: f"{repository}/{page}" for name, page in pages.items()}}


class IndexDescription(MetadataHookInterface):
    """Called by hatchling when it reads the metadata of the project."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in `readme` and `urls`, which pyproject.toml declares as dynamic."""
        root = Path(self.root)
        repository = (os.environ.get(VARIABLE) or "").rstrip("/") or None
        if repository is not None and not re.fullmatch(r"https://[^\s?#]+", repository):
            raise ValueError(f"{VARIABLE} must be the https address of the repository. Received {repository!r}.")
        source = (root / "src" / "promptweave" / "__init__.py").read_text(encoding="utf-8")
        version = re.findall(r'^__version__ = "(.+)"$', source, re.M)[0]
        text = described((root / "README.md").read_text(encoding="utf-8"), repository, version)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = urls(repository)

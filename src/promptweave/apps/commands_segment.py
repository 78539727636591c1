"""The command segment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from promptweave.apps.common import SETTINGS, Opening, Speaking
from promptweave.apps.flags import Flags, command
from promptweave.apps.looking import PASSES, passes_of
from promptweave.core.fields import Option
from promptweave.core.file_names import numbered


@dataclass(frozen=True)
class Named:
    """What is looked for, and how the image is looked at."""

    words: Annotated[tuple[str, ...], Option("The words to find: cat,bike.", group="What changes", metavar="WORDS")]
    inversion: Annotated[
        str | None,
        Option(
            "Look along an inversion instead of at the noised image: direct, ddim ...",
            group="Advanced", metavar="NAME[:OPTION=VALUE,...]",
        ),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class Labels(Speaking):
    """Where the labels go."""

    output: Annotated[Path, Option("Folder of the results.", group="Output", short="o")] = Path("out/segment")
    force: Annotated[bool, Option("Replace an earlier segmentation in the folder.", group="Output", short="f")] = False

    def apart(self) -> Labels:
        """The same beside earlier results: for folders that the user did not choose."""
        return self if self.force else replace(self, output=numbered(self.output))


@command(
    named=Flags(Named), how=Flags("promptweave.maps.segmentation:Segmenting"), passes=PASSES, settings=SETTINGS,
    opening=Flags(Opening), output=Flags(Labels),
)  # fmt: skip
def segment(
    image: Annotated[str, Parameter(help="Image file.")], /, *, named: Named, how: dict[str, Any],
    passes: dict[str, Any], settings: dict[str, Any], opening: Opening, output: Labels,
) -> None:  # fmt: skip
    """Find where words are in an image: labels, an overlay, and a mask for each word."""
    from promptweave.maps.segmentation import check_segments
    from promptweave.maps.segmentation import segment as make

    check_segments(output.output, force=output.force)
    words, background = (tuple(w for text in texts for w in text.split(",")) for texts in (named.words,
                         how.pop("background", ())))  # fmt: skip
    network, terminal = opening.load(), output.terminal
    with terminal.progress("looking", passes_of(True, named.inversion, passes, settings, network)) as advance:
        made = make(
            image, words, background=background, model=network, inversion=named.inversion, progress=advance, **how,
            **passes, **settings,
        )  # fmt: skip
    files = made.save(output.output, force=output.force)
    terminal.give({"files": [str(path) for path in files], **made.record()})
    for word, share in made.fractions().items():
        terminal.say(f"  {word}: {share:.1%} of the image")
    terminal.say(*(f"wrote {path}" for path in files))

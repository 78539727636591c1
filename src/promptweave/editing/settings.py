"""The settings of a run: one list for Python, the command line, job files and the web page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypedDict

from promptweave.core.clock import Number
from promptweave.core.fields import Option, options_of
from promptweave.editing.values import nearest, read_options

Fit = Literal["crop", "pad", "stretch"]
Size = tuple[int, int] | Literal["auto"]


@dataclass(frozen=True)
class Settings:
    """How images are generated. None stands for the default, or the model's own."""

    seed: Annotated[
        int | None, Option("Seed of the starting noise. [0]", low=0, high=2**63 - 1, group="Image", short="s")
    ] = None
    images: Annotated[
        int | None, Option("Images per prompt, from seed, seed + 1, ... [1]", low=1, group="Image")
    ] = None  # fmt: skip
    steps: Annotated[
        int | None,
        Option("Sampling steps. [the model's own: 50 for toybox, 8 for toybox-fast]", low=1, high=1000, group="Image"),
    ] = None
    guidance: Annotated[
        Number | None,
        Option(
            "Guidance scale; 1, and 0 for distilled models, switches guidance off. [the model's own: 2 for toybox]",
            low=0, group="Image",
        ),
    ] = None  # fmt: skip
    size: Annotated[
        Size | None,
        Option(
            "Pixels, height x width, such as 128 or 128x192; auto: the model's area in the shape of --image. [the "
            "model's own]",
            low=1, group="Image", metavar="PIXELS|auto",
        ),
    ] = None  # fmt: skip
    negative: Annotated[str | None, Option("Negative prompt.", group="Image")] = None
    truncate: Annotated[bool, Option("Truncate prompts that are too long for the model.", group="Advanced")] = False
    fit: Annotated[
        Fit | None,
        Option(
            "How --image gets the size: crop to its middle, pad with its edges, or stretch. [crop]", group="Image"
        ),
    ] = None  # fmt: skip

    keep_original: Annotated[
        bool,
        Option(
            "Put the edit back into --image at full size, in place of what it changed; all other pixels stay as they "
            "are.",
            group="Image",
        ),
    ] = False

    def __post_init__(self) -> None:
        for name, value in read_options(Settings, vars(self)).items():
            object.__setattr__(self, name, value)

    def with_(self, given: Mapping[str, Any]) -> Settings:
        """A copy with the settings that were given as keywords. Raises ValueError for one given in both places."""
        given = {name: value for name, value in given.items() if value is not None}
        unset = Settings()
        twice = [name for name in given if getattr(self, name) != getattr(unset, name)]
        if twice:
            raise ValueError(f"{twice[0]} was given twice, as a keyword and in settings. Leave one of them out.")
        return replace(self, **read_options(Settings, given))


class RunOptions(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments."""

    seed: int | None
    images: int | None
    steps: int | None
    guidance: Number | None
    size: Size | None
    negative: str | None
    truncate: bool
    fit: Fit | None
    keep_original: bool


def split(call: str, given: Mapping[str, Any], *lists: type) -> list[dict[str, Any]]:
    """Sort the keywords of a call by the dataclass that has the option. Raises TypeError for unknown ones."""
    names = [[listed.name for listed in options_of(kind)] for kind in lists]
    known = [name for some in names for name in some]
    for name in given:
        if name not in known:
            raise TypeError(f"{call} has no option {name!r}. {nearest(name, known)}")
    return [{name: value for name, value in given.items() if name in some} for some in names]

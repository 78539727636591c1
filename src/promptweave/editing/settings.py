"""The settings of a run, whatever is edited: the one list that Python, the command line, jobs and the page share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from promptweave.core.clock import Number
from promptweave.core.fields import Option


@dataclass(frozen=True)
class Settings:
    """How images are made. None stands for what is usual, or what suits the model."""

    seed: Annotated[
        int | None, Option("Seed of the starting noise. [0]", low=0, high=2**63 - 1, group="Image", short="s")
    ] = None
    images: Annotated[
        int | None, Option("Images per prompt, from seed, seed + 1, ... [1]", low=1, group="Image")
    ] = None  # fmt: skip
    steps: Annotated[
        int | None,
        Option(
            "Sampling steps. [what suits the model: 50 for toybox, 8 for toybox-fast]", low=1, high=1000, group="Image"
        ),
    ] = None
    guidance: Annotated[
        Number | None,
        Option(
            "Guidance scale; 1 switches guidance off. [what suits the model: 2 for toybox]", low=0, group="Image"
        ),
    ] = None  # fmt: skip
    size: Annotated[
        tuple[int, int] | None,
        Option("Pixels, height x width, such as 128 or 128x192. [the model's own]", low=1, group="Image"),
    ] = None
    negative: Annotated[str | None, Option("Negative prompt: what guidance leads away from.", group="Image")] = None
    truncate: Annotated[bool, Option("Let prompts be longer than the model reads.", group="Advanced")] = False

"""Limits on the requests of visitors, and on what the page keeps for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from promptweave.core.fields import Option
from promptweave.editing.inversions import read_inversion
from promptweave.editing.recipe import Recipe


class TooMuch(ValueError):
    """A request that exceeds the page's limits."""


@dataclass(frozen=True)
class Limits:
    """Those with an `Option` are set by `promptweave app`; the others are generous bounds of what a run may hold."""

    steps: Annotated[int, Option("Sampling steps of a run.", low=1, high=1000, group="Limits", flag="--max-steps")] = (
        100
    )
    pixels: Annotated[
        int, Option("Pixels of an image, height x width.", low=1, group="Limits", flag="--max-pixels")
    ] = 1024 * 1024
    images: Annotated[int, Option("Images of a run, prompts x seeds.", low=1, group="Limits", flag="--max-images")] = 4
    characters: Annotated[int, Option("Characters of a prompt.", low=1, group="Limits", flag="--max-characters")] = 1000
    cells: Annotated[int, Option("Images of a sweep.", low=1, group="Limits", flag="--max-cells")] = 36
    queue: Annotated[int, Option("Runs that wait, of all visitors.", low=1, group="Limits", flag="--max-queue")] = 32
    share: Annotated[int, Option("Runs that wait, of one visitor.", low=1, group="Limits", flag="--max-queue-each")] = 4
    visitors: Annotated[
        int,
        Option(
            "Visitors whose images are kept; the one who was away longest goes first.",
            low=1,
            group="Limits",
            flag="--max-visitors",
        ),
    ] = 32
    history: Annotated[
        int, Option("Images that are kept for one visitor.", low=1, group="Limits", flag="--max-history")
    ] = 30
    held: Annotated[
        int,
        Option("Megabytes of images that are kept for one visitor.", low=1, group="Limits", flag="--max-history-mb"),
    ] = 100
    away: Annotated[
        int, Option("Seconds that a visitor who left may come back.", low=0, group="Limits", flag="--keep-visitors")
    ] = 60  # fmt: skip
    recordings: Annotated[
        int, Option("Megabytes of recordings, of all visitors.", low=0, group="Limits", flag="--max-recordings-mb")
    ] = 1000
    idle: Annotated[
        int,
        Option(
            "Seconds after which a recording that no visitor uses is dropped.",
            low=0,
            group="Limits",
            flag="--keep-recordings",
        ),
    ] = 300
    files: Annotated[
        int, Option("Megabytes of temporary files, of all visitors.", low=1, group="Limits", flag="--max-files-mb")
    ] = 200
    age: Annotated[
        int, Option("Seconds after which a temporary file is deleted.", low=1, group="Limits", flag="--keep-files")
    ] = 120
    upload: Annotated[int, Option("Megabytes of an upload.", low=1, group="Limits", flag="--max-upload-mb")] = 20
    upload_pixels: Annotated[int, Option("Pixels of an upload.", low=1, group="Limits", flag="--max-upload-pixels")] = (
        16_000_000
    )
    uploads: Annotated[
        int,
        Option("Megabytes that one address may upload in ten minutes.", low=1, group="Limits", flag="--max-uploads-mb"),
    ] = 200
    seed: int = 2**31 - 1
    chain: int = 8
    controls: int = 12
    mask_cells: int = 1024 * 1024
    repeats: int = 100  # whole numbers of a control: iterations, tokens
    listed: int = 64  # words, phrases and sentences of a control
    body: int = 4_000_000  # bytes of a request in JSON

    @property
    def upload_bytes(self) -> int:
        return self.upload * 1_000_000

    def text(self, text: str) -> str:
        """The text, if it is short enough to be read. Raises TooMuch."""
        if len(text) > self.characters:
            raise TooMuch(_said("characters of a prompt", self.characters, len(text)))
        return text

    def check(self, recipe: Recipe, depth: int = 1) -> None:
        """Raise TooMuch for a recipe (or its bases) that would take too long or too much memory."""
        size = recipe.size or (1, 1)
        picture = (1, 1) if recipe.picture is None else recipe.picture.size
        masks = [getattr(control, "mask", None) or () for control in recipe.controls]
        asked = {
            "steps": (recipe.steps, self.steps),
            "pixels": (size[0] * size[1], self.pixels),
            "pixels of the image": (picture[0] * picture[1], self.pixels),
            "images at once": (len(recipe.prompts) * recipe.images, self.images),
            "characters of a prompt": (max(len(p) for p in (*recipe.prompts, recipe.negative)), self.characters),
            "the seed": (recipe.seed, self.seed),
            "controls": (len(recipe.controls), self.controls),
            "cells of a mask": (sum(len(row) for mask in masks for row in mask), self.mask_cells),
            "chained edits": (depth, self.chain),
            "times the prompt's length": (recipe.chunks, 4),
        }
        if recipe.picture is not None:
            asked["bytes of the original"] = (len(recipe.picture.original or b""), self.upload_bytes)
        inversion = None if recipe.picture is None else read_inversion(recipe.inversion)
        for part in (*recipe.controls, *([] if inversion is None else [inversion])):
            for field in dataclasses.fields(part):
                name, value = f"{field.name} of {type(part).__name__}", getattr(part, field.name)
                whole, texts, longest = _sizes(value)
                usual = field.default if isinstance(field.default, int) else 0
                asked |= {
                    name: (whole, max(self.repeats, usual)),
                    f"parts of {name}": (texts, self.listed),
                    f"characters of {name}": (longest, self.characters),
                }
        for name, (value, most) in asked.items():
            if isinstance(value, bool) or not isinstance(value, int) or value > most:
                raise TooMuch(_said(name, most, value))
        if recipe.steps < 1:
            raise TooMuch(f"steps must be at least 1. Received {recipe.steps}.")
        if recipe.base is not None:
            self.check(recipe.base, depth + 1)


def _said(name: str, most: int, value: Any) -> str:
    return f"This page allows at most {most} for {name}. Received {str(value)[:40]}. Ask for less."


def _sizes(value: Any) -> tuple[int, int, int]:
    """The largest whole number in a parameter, the number of its words, and the length of the longest."""
    numbers, texts, longest, todo = [0], 0, 0, [value]
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            texts, longest = texts + 1, max(longest, len(part))
        elif isinstance(part, Mapping):
            todo += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            todo += part
        elif isinstance(part, int) and not isinstance(part, bool):
            numbers.append(abs(part))
    return max(numbers), texts, longest

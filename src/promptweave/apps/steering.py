"""What the commands of the methods for one prompt share: make the picture with and without, keep maps, save, tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from promptweave.apps.terminal import Terminal
from promptweave.core.control import Control
from promptweave.editing.edit import run
from promptweave.editing.plan import recipe_for
from promptweave.editing.recorders import columns, for_words
from promptweave.editing.result import Result, check_output
from promptweave.maps.word_maps import WordMaps, words_of
from promptweave.models.base import Model
from promptweave.view.sheet import sheet


def steer(
    terminal: Terminal, prompt: str, controls: Sequence[Control], network: Model, *, output: Path, force: bool,
    seed: int = 0, images: int = 1, steps: int | None = None, guidance: int | float | None = None,
    size: tuple[int, int] | None = None, negative: str = "", truncate: bool = False,
) -> tuple[Result, WordMaps, WordMaps]:  # fmt: skip
    """The run under the controls, with the pictures made without them, and the word maps of both (with, without)."""
    check_output(output, force=force)
    recipe = recipe_for(
        network, prompt, (), seed=seed, images=images, steps=steps, guidance=guidance, size=size, negative=negative,
        truncate=truncate,
    )  # fmt: skip
    controlled = replace(recipe, controls=tuple(controls))
    watch, kept = [for_words(recipe, network)], columns(network.words(prompt))
    with terminal.progress("steering", 2 * recipe.steps) as advance:
        plain = run(recipe, network, watch=watch, progress=advance)
        made = run(controlled, network, watch=watch, progress=advance)
    made = replace(made, plain=plain.sample.pictures)
    return made, words_of(made, 0, kept=kept), words_of(plain, 0, kept=kept)


def maps_of_both(plain: WordMaps, steered: WordMaps, words: Sequence[str]) -> Image.Image:
    """The picture and the maps of some words, without the method above and with it below."""
    rows = [[maps.picture, *(maps.over(word) for word in words)] for maps in (plain, steered)]
    return sheet(rows, [[name, *(f"{word}, {name}" for word in words)] for name in ("plain", "steered")])


def save(terminal: Terminal, result: Result, output: Path, force: bool, **extra: Image.Image) -> None:
    """Write the result and further pictures beside it, and say what the controls did."""
    files = result.save(output, force=force)
    for name, picture in extra.items():
        files.append(output / f"{name}.png")
        picture.save(files[-1])
    terminal.give({"files": [str(path) for path in files], **result.record})
    terminal.say(*(f"wrote {path}" for path in files))


def facts(report: dict[str, Any], hidden: Sequence[str] = ("control",)) -> str:
    """A control's report in a line."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in report.items() if key not in hidden)

"""A single prompt under controls: images with and without them, and the word maps of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from promptweave.apps.common import recipe_of
from promptweave.apps.terminal import Terminal
from promptweave.core.control import Control
from promptweave.editing.edit import run
from promptweave.editing.masks import with_controls
from promptweave.editing.recorders import columns, edit_watch, for_words
from promptweave.editing.result import Result
from promptweave.maps.word_maps import WordMaps, words_of
from promptweave.models.base import Model
from promptweave.view.sheet import sheet


def steer(
    terminal: Terminal, prompt: str, controls: Sequence[Control], network: Model, *, report: bool = False,
    **settings: Any,
) -> tuple[Result, WordMaps, WordMaps]:  # fmt: skip
    """Run under the controls and without them. Returns the result and the word maps of both (with, without)."""
    recipe = recipe_of(network, prompt, (), settings)
    controlled = with_controls(recipe, controls, network)
    watch = edit_watch(recipe, network) if report else (for_words(recipe, network),)
    kept = columns(network.words(prompt))
    with terminal.progress("steering", 2 * recipe.steps) as advance:
        plain = run(recipe, network, watch=watch, compared=True, progress=advance)
        made = run(controlled, network, watch=watch, progress=advance)
    computed = replace(made.computed, plain=plain.computed.beside)
    made = replace(made, plain=plain.sample.pictures, computed=computed)
    return made, words_of(made, 0, kept=kept), words_of(plain, 0, kept=kept)


def maps_of_both(plain: WordMaps, steered: WordMaps, words: Sequence[str]) -> Image.Image:
    """A sheet of the image and the maps of some words: without the method above, with it below."""
    rows = [[maps.picture, *(maps.over(word) for word in words)] for maps in (plain, steered)]
    return sheet(rows, [[name, *(f"{word}, {name}" for word in words)] for name in ("plain", "steered")])

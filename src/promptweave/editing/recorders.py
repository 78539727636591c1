"""Recorders for the views: which words and tokens, in which layers, and how much memory that takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from promptweave.core.control import Run
from promptweave.core.record_maps import RecordMaps
from promptweave.core.site import Site, Sites
from promptweave.editing.picture import Given, Picture
from promptweave.editing.plan import check_lengths, recipe_for
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import TooLarge, megabytes
from promptweave.editing.settings import Settings, split
from promptweave.editing.who_reads import Unread
from promptweave.models.base import Model
from promptweave.sampling.loop import Job, noise_for
from promptweave.words import Words
from promptweave.words.units import key, loose

BUDGET = 2_000_000_000  # default budget: bytes of maps that a run may keep
Grid = int | tuple[int, int] | Literal["all"] | None
Named = tuple[tuple[str, tuple[int, ...]], ...]  # names of words, and their tokens
SPECIAL = ("<start>", "<end>")


def named(words: Words, special: bool = False) -> Named:
    """The words that the model reads, with the start and end tokens; a repeated word gets the suffix "#2"."""
    found: list[tuple[str, tuple[int, ...]]] = []
    seen: list[str] = []
    for word in words.words:
        seen.append(key(word.text))
        if words.own(word) and word not in words.truncated:
            count = seen.count(seen[-1])
            found.append((f"{word.text}#{count}" if count > 1 else word.text, words.own(word)))
    if special:
        start = words.places[:1] if words.places[0] not in _tokens(words) else ()
        found = [*([(SPECIAL[0], start)] if start else []), *found, (SPECIAL[1], words.places[-1:])]
    return tuple(found)


def of_word(names: Named, word: str) -> tuple[int, ...] | None:
    """The tokens of a word among named ones, or of neighbours that make up a phrase; None if there are none.

    >>> of_word((("草", (1, 2)), ("地", (3,)), ("red", (4,)), ("car#2", (5,))), "草地")
    (1, 2, 3)
    """
    known = dict(names)
    if word in known:
        return known[word]
    plain = [re.sub(r"#[0-9]+$", "", name) for name, _ in names]
    wanted = loose("".join(word.split()))
    for first in range(len(plain)):
        for last in range(first + 1, len(plain) + 1):
            text = loose("".join(plain[first:last]))
            if wanted and text == wanted:
                return tuple(token for _, tokens in names[first:last] for token in tokens)
            if not wanted.startswith(text):
                break
    return None


def columns(words: Words) -> tuple[int, ...]:
    """The tokens of a prompt without padding: start, words, punctuation and end."""
    return tuple(sorted({words.places[0], *_tokens(words), words.places[-1]}))


def _tokens(words: Words) -> set[int]:
    return {token for unit in words.units for token in unit.tokens}


def at(names: Named, kept: Sequence[int]) -> Named:
    """The same words, with positions in `kept` instead of tokens."""
    places = {token: place for place, token in enumerate(kept)}
    return tuple((name, tuple(places[token] for token in tokens)) for name, tokens in names)


def text_sites(sites: Sequence[Site], usual: Sites, grid: Grid) -> Sites:
    """The layers that attend to text: those of word maps, of one grid, or of all grids (like DAAM, not the middle)."""
    looking = [site for site in sites if site.kind in ("cross", "joint")]
    if grid is None:
        return usual
    if grid == "all":
        chosen = [site for site in looking if site.place != "mid"]
    else:
        wanted = (grid, grid) if isinstance(grid, int) else grid
        chosen = [site for site in looking if site.grid == wanted]
    if not chosen:
        have = ", ".join(dict.fromkeys(f"{site.grid[0]}x{site.grid[1]}" for site in looking))
        raise ValueError(
            f"Word maps of this model and size have the grids {have}. Received {grid}. Choose one of them."
        )
    return Sites(names=tuple(site.name for site in chosen))


def named_sites(sites: Sequence[Site], layers: Sequence[str]) -> Sites:
    """The layers that attend to text and whose names begin with one of `layers`; "all" selects every layer."""
    looking = [site for site in sites if site.kind in ("cross", "joint")]
    chosen = [site.name for site in looking if "all" in layers or site.name.startswith(tuple(layers))]
    if not chosen:
        raise ValueError(
            f'Layers are selected by the beginning of their names, or "all". Received {", ".join(layers)}. '
            f"Names: {', '.join(site.name for site in looking)}."
        )
    return Sites(names=tuple(chosen))


def single(
    model: Model,
    call: str,
    prompt: str,
    settings: Settings | None,
    given: Mapping[str, Any],
    *,
    image: Given | Picture | None = None,
    inversion: str | None = None,
) -> Recipe:
    """The recipe of a view of one image."""
    chosen = (settings or Settings()).with_(*split(call, given, Settings))
    if chosen.images not in (None, 1):
        raise Unread(f"{call} shows a single image. Received images={chosen.images}. Leave images out.")
    if chosen.keep_original:
        raise Unread(f"Nothing reads keep_original here: {call} edits nothing. Leave keep_original out.")
    recipe = recipe_for(model, prompt, (), replace(chosen, images=None), image=image, inversion=inversion)
    recipe.check()
    check_lengths(recipe, model)
    return recipe


def bound(recipe: Recipe, model: Model) -> Run:
    """Bind the recipe to its run, without controls."""
    noise = noise_for(model, recipe.seed, recipe.images, recipe.size)
    return Job(recipe.prompts, noise, recipe.steps, recipe.guidance, truncate=recipe.truncate).bind(model)[0]


def check_budget(run: Run, recorders: Sequence[Any], budget: int | None) -> int:
    """Bytes that the recorders will keep of a run. Raises TooLarge if they exceed the budget."""
    needed = sum(recorder.estimate(run) for recorder in recorders if isinstance(recorder, RecordMaps))
    if budget is not None and needed > budget:
        raise TooLarge(
            f"The maps of a run must fit into the budget of {megabytes(budget)}. These need {megabytes(needed)}. "
            "Choose fewer steps or layers, a coarser grid, no single heads, or allow more."
        )
    return needed


def for_words(recipe: Recipe, model: Model, **options: Any) -> RecordMaps:
    """A recorder of the word maps of all prompts of a recipe, without padding."""
    kept = tuple(columns(model.words(prompt)) for prompt in recipe.prompts)
    return replace(RecordMaps(columns=kept), **options)


def edit_watch(recipe: Recipe, model: Model, budget: int | None = BUDGET) -> tuple[RecordMaps, RecordMaps]:
    """Recorders of an edit: the effective maps of all prompts, and the targets' own maps before the edit."""
    made = for_words(recipe, model)
    watch = (made, replace(made, own=True, prompts=tuple(range(1, len(recipe.prompts)))))
    check_budget(bound(recipe, model), watch, budget)
    return watch

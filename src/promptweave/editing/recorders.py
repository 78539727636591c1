"""What views share: the words and tokens that a run's maps are of, where to look, and what that will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from promptweave.core.control import Run
from promptweave.core.record_maps import RecordMaps
from promptweave.core.site import Site, Sites
from promptweave.editing.options import Unread
from promptweave.editing.plan import check_lengths, recipe_for
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import TooLarge, megabytes
from promptweave.editing.settings import Settings, split
from promptweave.models.base import Model
from promptweave.sampling.loop import Job, noise_for
from promptweave.words import Words

BUDGET = 2_000_000_000  # bytes of maps that a run may keep, unless more is allowed
Grid = int | tuple[int, int] | Literal["all"] | None
Named = tuple[tuple[str, tuple[int, ...]], ...]  # words and their tokens
SPECIAL = ("<start>", "<end>")


def named(words: Words, special: bool = False) -> Named:
    """The words that the model reads, told apart by "#2" where one occurs again, and the start and the end."""
    found: list[tuple[str, tuple[int, ...]]] = []
    for word in words.words:
        if word.tokens and word not in words.truncated:
            count = sum(name.partition("#")[0] == word.text for name, _ in found)
            found.append((f"{word.text}#{count + 1}" if count else word.text, word.tokens))
    if special:
        start = words.places[:1] if words.places[0] not in _tokens(words) else ()
        found = [*([(SPECIAL[0], start)] if start else []), *found, (SPECIAL[1], words.places[-1:])]
    return tuple(found)


def columns(words: Words) -> tuple[int, ...]:
    """The tokens of a prompt that say something: start, words, punctuation and end; the padding left out."""
    return tuple(sorted({words.places[0], *_tokens(words), words.places[-1]}))


def _tokens(words: Words) -> set[int]:
    return {token for unit in words.units for token in unit.tokens}


def at(names: Named, kept: Sequence[int]) -> Named:
    """The same words, with places in `kept` instead of tokens."""
    places = {token: place for place, token in enumerate(kept)}
    return tuple((name, tuple(places[token] for token in tokens)) for name, tokens in names)


def text_sites(sites: Sequence[Site], usual: Sites, grid: Grid) -> Sites:
    """The layers that look at the text: those of word maps, of one grid, or of all grids (but, as DAAM, the middle)."""
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
    """The layers that look at the text whose names begin with one of `layers`; "all" is every one."""
    looking = [site for site in sites if site.kind in ("cross", "joint")]
    chosen = [site.name for site in looking if "all" in layers or site.name.startswith(tuple(layers))]
    if not chosen:
        raise ValueError(
            f'Layers are named by the beginnings of their names, or "all". Received {", ".join(layers)}. '
            f"Names: {', '.join(site.name for site in looking)}."
        )
    return Sites(names=tuple(chosen))


def single(
    model: Model, call: str, prompt: str, settings: Settings | None, given: Mapping[str, Any]
) -> Recipe:  # fmt: skip
    """The recipe of a view of one image, whose prompt may be longer than the model reads unless `truncate` says no."""
    chosen = (settings or Settings()).with_(*split(call, given, Settings))
    if chosen.images not in (None, 1):
        raise Unread(f"{call} is of one image. Received images={chosen.images}. Leave it out.")
    recipe = recipe_for(model, prompt, (), replace(chosen, images=None, truncate=given.get("truncate", True)))
    recipe.check()
    check_lengths(recipe, model)
    return recipe


def bound(recipe: Recipe, model: Model) -> Run:
    """What a run of the recipe will look like."""
    noise = noise_for(model, recipe.seed, recipe.images, recipe.size)
    return Job(recipe.prompts, noise, recipe.steps, recipe.guidance).bind(model)[0]


def check_budget(recipe: Recipe, model: Model, recorders: Sequence[Any], budget: int | None) -> int:
    """Bytes that the recorders will keep; raises TooLarge if they are more than allowed."""
    run = bound(recipe, model)
    needed = sum(recorder.estimate(run) for recorder in recorders if isinstance(recorder, RecordMaps))
    if budget is not None and needed > budget:
        raise TooLarge(
            f"The maps of a run must fit into their budget of {megabytes(budget)}. These need {megabytes(needed)}. "
            "Choose fewer steps or layers, a coarser grid, no single heads, or allow more."
        )
    return needed


def for_words(recipe: Recipe, model: Model, **options: Any) -> RecordMaps:
    """A recorder of the words' maps of all prompts of a recipe, without the maps of padding."""
    kept = tuple(columns(model.words(prompt)) for prompt in recipe.prompts)
    return replace(RecordMaps(columns=kept), **options)


def edit_watch(recipe: Recipe, model: Model, budget: int | None = BUDGET) -> tuple[RecordMaps, RecordMaps]:
    """Recorders of an edit: the maps in effect of all prompts, and those of the targets' own queries and keys."""
    made = for_words(recipe, model)
    watch = (made, replace(made, own=True, prompts=tuple(range(1, len(recipe.prompts)))))
    check_budget(recipe, model, watch, budget)
    return watch

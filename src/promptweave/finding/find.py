"""Find the strengths of an edit: `find`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from promptweave.core.control import NoEffect
from promptweave.core.kept import NOTHING, together
from promptweave.core.typed import checked
from promptweave.editing.checking import remembering
from promptweave.editing.inverted_file import InvertedImage
from promptweave.editing.options import EditOptions, PromptToPrompt
from promptweave.editing.own_model import model_of
from promptweave.editing.picture import Given, Picture
from promptweave.editing.plan import bind, plan
from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording
from promptweave.editing.recorders import edit_watch
from promptweave.editing.settings import Settings, split
from promptweave.editing.sweep import acting, in_all, recordings_for
from promptweave.editing.who_reads import Unread
from promptweave.finding.choosing import judge_for
from promptweave.finding.found import Found
from promptweave.finding.ladders import Column, NothingToFind, columns
from promptweave.finding.ladders import Settings as Tried
from promptweave.finding.search import Search
from promptweave.finding.verdicts import EditJudge
from promptweave.inversion import Inversion
from promptweave.models.base import Model
from promptweave.sampling.recording import Place
from promptweave.sampling.walk import Progress
from promptweave.words.edit_kinds import change, weighted_words


@checked
def find(
    source: str | Recording | InvertedImage,
    target: str | None = None,
    *,
    model: Model | str | None = None,
    judge: str | EditJudge = "auto",
    image: Given | Picture | None = None,
    inversion: str | Inversion | None = None,
    place: Place = "cpu",
    budget: int | None = None,
    maps: bool = False,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **options: Unpack[EditOptions],
) -> Found:
    """Search the strengths of an edit, from one recording of its source, for at most four plain edits' work.

    Searched are, as far as they are not given as options: cross and self_attention (joint with joint attention;
    strength, structure or inject for the kinds that have it), and whether the change is restricted to the words'
    regions (blend), with which threshold. `target` may be left out for an edit by `weights`.

    `judge`: "oracle" (of the world of the embedded models), "clip" or "clip:FOLDER", "maps" (of attention), or an
    object with `verdicts.EditJudge`'s methods; "auto" takes the oracle for an embedded model and words of its world,
    else CLIP if it is on this machine, else the maps. `maps`: record the word maps of the edits, as `edit` does.
    `place` and `budget` are the recording's; all else is that of `edit`. Raises NothingToFind if everything that could
    be searched was given, NoSuchJudge, and what `edit` raises.
    """
    network = model_of(None if isinstance(source, str) else source.recipe, model)
    asked, run_options = split("find", options, PromptToPrompt, Settings)
    given = {name: value for name, value in asked.items() if value is not None and value != () and value != ""}
    chosen = (settings or Settings()).with_(run_options)
    images = chosen.images or (1 if isinstance(source, str) else source.recipe.images)
    if images != 1:
        raise Unread(f"A search judges a single image. Received images={images}. Leave images out, or record one.")
    weights = given.get("weights")
    if target is None and not weights:
        raise NoEffect("A search needs a target prompt, or weights for words of the source. Received neither.")
    prompt = source if isinstance(source, str) else source.prompt
    targets = [] if target is None else [target]
    words = network.words(prompt), network.words(prompt if target is None else target)
    changed = change(*words, weighted_words(weights))
    tried = columns(network, given, changed, words[1])

    seen = remembering(network)

    def planned(at: Tried) -> Recipe:
        return plan(source, targets, seen, {**given, **at}, chosen, image=image, inversion=inversion)

    image = planned(tried[0].at(0)).picture if image is not None else None  # read once
    cells = [[planned(column.at(rung)) for rung in range(len(column.rungs))] for column in tried]
    always = in_all([cell for row in cells for cell in row])

    def recipe(at: Tried) -> Recipe:
        return acting(planned(at), seen, always)

    rows = [[acting(cell, seen, always) for cell in row] for row in cells]
    recipes = [one for row in rows for one in row]
    for one in recipes:
        bind(one, seen)
    chosen_judge = judge_for(judge, network, words, changed, weights)
    watch = edit_watch(recipes[0], network) if maps or chosen_judge.reads_maps else ()
    if isinstance(source, Recording):
        tried = _recorded(tried, rows, source, network, maps=bool(watch))
    recording = recordings_for(source, recipes, network, place, budget, progress, maps=bool(watch))[0]
    search = Search(network, chosen_judge, recipe, recording, watch, progress)
    return search.run(tried, given)


def _recorded(
    tried: Sequence[Column], rows: Sequence[Sequence[Recipe]], source: Recording, model: Model, *, maps: bool
) -> tuple[Column, ...]:
    """The columns with the rungs that a recording has enough of. Raises NothingToFind if it has too little for any."""
    run, kept = bind(replace(source.recipe, controls=()), model), source.track.kept
    whole, found = together([kept], run), list[Column]()
    for column, cells in zip(tried, rows, strict=True):
        more = [replace(NOTHING, maps=True)] if maps else []
        fits = [together([kept, *more, *(c.reads(run) for c in cell.controls)], run) == whole for cell in cells]
        rungs = tuple(rung for rung, fit in zip(column.rungs, fits, strict=True) if fit)
        found += [replace(column, rungs=rungs)] if rungs else []
    if not found:
        raise NothingToFind(
            f"A recording must hold what a search reads. This one has cross={kept.cross}, self={kept.self_attention}, "
            f"joint={kept.joint}, maps={kept.maps}. Record with larger windows."
        )
    return tuple(found)

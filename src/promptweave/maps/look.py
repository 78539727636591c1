"""All views of one run: words, steps, layers, heads and self-attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

from promptweave.core.clock import Number
from promptweave.core.control import Control, Run
from promptweave.core.record_maps import RecordMaps, self_recorder
from promptweave.core.shown import brief
from promptweave.core.site import Sites
from promptweave.core.typed import checked
from promptweave.editing.picture import Given, Picture
from promptweave.editing.recorders import BUDGET, Grid, check_budget, columns, named_sites, single, text_sites
from promptweave.editing.result import Result
from promptweave.editing.settings import RunOptions, Settings, split
from promptweave.maps.concept_attention import ConceptAttention, Space, concepts_of
from promptweave.maps.gallery import Gallery, gallery_of
from promptweave.maps.noised import NoisedPasses, bound_to, noising_of, run_or_look
from promptweave.maps.self_attention import SelfMaps, self_maps_of
from promptweave.maps.word_maps import WordMaps, words_of
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.sampling.loop import Progress
from promptweave.view.html_image import as_html
from promptweave.view.names import clamped

SHOWN = (0, 5, 10, 25, 50)  # the steps of the Prompt-to-Prompt slides


@dataclass(frozen=True, eq=False)
class Look:
    """The recorded views of a run: `words` always, the others if requested.

    `by_step`: the mean over the layers of one grid at chosen steps, `every_step` at all steps; `gallery`: chosen steps,
    layer by layer. `concepts`: fractions among the concepts, which sum to 1 at each pixel.
    """

    result: Result
    words: WordMaps
    by_step: Gallery | None = None
    every_step: Gallery | None = None
    gallery: Gallery | None = None
    self_attention: SelfMaps | None = None
    concepts: WordMaps | None = None

    def __repr__(self) -> str:
        names = ("by_step", "every_step", "gallery", "self_attention", "concepts")
        return brief(self, repr(self.words), *(name for name in names if getattr(self, name) is not None))

    def _repr_html_(self) -> str:
        return as_html(self.words.strip(), f"{self.words.prompt}: what each word looks at")


@checked
def look(
    prompt: str,
    *,
    steps_shown: Sequence[int] | None = None,
    layers: Sequence[str] = (),
    heads: bool = False,
    every_step: bool = False,
    self_attention: bool | int | tuple[int, int] = False,
    grid: Grid = None,
    special: bool = False,
    model: Model | str = "toybox",
    budget: int | None = BUDGET,
    image: Given | Picture | None = None,
    inversion: str | None = None,
    times: Sequence[Number] | None = None,
    noises: int | None = None,
    concepts: Sequence[str] = (),
    concept_space: Space = "output",
    settings: Settings | None = None,
    progress: Progress | None = None,
    **options: Unpack[RunOptions],
) -> Look:
    """Generate an image and record its attention maps.

    `steps_shown`: the steps to keep separately (`every_step`: all); a step past the end becomes the last. `layers`: the
    layers to keep separately at these steps, by the beginning of their names ("all", "down", "up_cross_2"); with
    `heads` also each head. `self_attention`: also record self-attention, on this grid, or with True on that of the word
    maps. `grid`: as in `word_maps`. `budget`: size of the maps in bytes above which TooLarge is raised before anything
    is computed. `concepts`: also record where these are, in joint networks, by the products of `concept_space`
    (`ConceptAttention`). Options: the fields of `Settings`, as in `word_maps`.

    `image`: an image that the prompt describes, instead of a generated one (see `edit`). Noise is added to it at each
    of `times` (fractions of the training times, [0, 1)) with each of `noises` draws (from seed, seed + 1, ...), and
    single passes are averaged; the steps of the views are then the times, noisiest first. With `inversion` the maps are
    those of a run along that inversion instead.
    """
    network = load_cached(model) if isinstance(model, str) else model
    run_settings = (settings or Settings()).with_(*split("look", options, Settings))
    passes = NoisedPasses(None if times is None else tuple(times), noises)
    noising = noising_of(passes, run_settings, network, image=image is not None, inversion=inversion)
    recipe = single(network, "look", prompt, run_settings, {}, image=image, inversion=inversion)
    here = bound_to(recipe, network, noising)
    usual = SHOWN if noising is None else tuple(range(here.steps))
    shown = usual if layers and steps_shown is None else steps_shown
    indices = None if shown is None else tuple(sorted(set(clamped(shown, here.steps).values())))
    kept = columns(here.words[0])
    base = RecordMaps(text_sites(here.sites, here.map_sites, grid), columns=(kept,))
    watch: dict[str, Control] = {"words": base}
    if shown is not None or every_step:
        steps_kept = None if every_step else indices
        watch["by_step"] = replace(base, sites=_one_grid(here, base.sites), by_step=True, steps=steps_kept)
    if layers:
        chosen = named_sites(here.sites, layers)
        watch["gallery"] = replace(base, sites=chosen, by_step=True, by_site=True, by_head=heads, steps=indices)
    if self_attention:
        watch["self"] = self_recorder(here, None if self_attention is True else self_attention)
    if concepts:
        watch["concepts"] = ConceptAttention(tuple(concepts), space=concept_space)
        watch["concepts"].bind(here)  # raises what is wrong before anything is computed
    check_budget(here, list(watch.values()), budget)
    made = run_or_look(recipe, network, noising, list(watch.values()), progress)
    place = {name: number for number, name in enumerate(watch)}

    def steps_of(name: str, asked: Sequence[int] | None) -> Gallery:
        return gallery_of(made, 0, asked, recorder=place[name], special=special)

    return Look(
        made,
        words_of(made, 0, special=special, kept=kept),
        steps_of("by_step", shown) if shown is not None else None,
        steps_of("by_step", None) if every_step else None,
        steps_of("gallery", shown) if layers else None,
        self_maps_of(made, 0, recorder=place["self"]) if self_attention else None,
        concepts_of(made, 0, recorder=place["concepts"]) if concepts else None,
    )


def _one_grid(here: Run, sites: Sites | None) -> Sites:
    """The sites of word maps, if the requested ones have several grids."""
    assert sites is not None
    grids = {site.grid for site in here.sites if site in sites}
    return sites if len(grids) == 1 else here.map_sites

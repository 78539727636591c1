"""Heat maps of a prompt's words, from one run (Prompt-to-Prompt, figure 4; DAAM, arXiv 2210.04885)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from promptweave.core.clock import Number
from promptweave.core.record_maps import RecordedMaps, RecordMaps
from promptweave.core.shown import brief, short
from promptweave.core.typed import checked
from promptweave.editing.picture import Given, Picture
from promptweave.editing.recorders import (
    BUDGET,
    SPECIAL,
    Grid,
    check_budget,
    columns,
    named,
    of_word,
    single,
    text_sites,
)
from promptweave.editing.result import Result
from promptweave.editing.settings import RunOptions, Settings, split
from promptweave.maps.noised import NoisedPasses, bound_to, noising_of, run_or_look
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.sampling.loop import Progress
from promptweave.view.aggregate import aggregated, shared_out
from promptweave.view.heat import coloured, heat, over
from promptweave.view.sheet import sheet


@dataclass(frozen=True, eq=False)
class WordMaps:
    """Cross-attention of an image, mean over layers, heads and steps: [height, width, tokens].

    With joint attention the columns of padding tokens are 0, since they are not recorded.
    """

    prompt: str
    picture: Image.Image
    attention: Float[Tensor, "height width tokens"]
    words: tuple[tuple[str, tuple[int, ...]], ...]

    def __repr__(self) -> str:
        grid = "x".join(map(str, self.attention.shape[:2]))
        return brief(self, short(self.prompt), f"{len(self.words)} words", f"grid {grid}")

    def of(self, word: str) -> Float[Tensor, "height width"]:
        """The map [height, width] of a word or phrase, summed over its tokens. Raises ValueError for other words."""
        tokens = of_word(self.words, word)
        if tokens is None:
            raise ValueError(f"{word!r} has no map. Choose one of {', '.join(dict(self.words))}.")
        return self.attention[..., list(tokens)].sum(-1)

    def over(self, word: str) -> np.ndarray:
        """A word's map drawn over the image, uint8 [height, width, 3]."""
        return over(self.of(word), np.asarray(self.picture))

    def renormalised(self) -> WordMaps:
        """Maps normalised over the words: each pixel's attention to them sums to 1, without start, end and padding.

        This makes maps of different prompts comparable, and those of joint attention, which also goes to pixels.
        """
        real = [token for name, tokens in self.words if name not in SPECIAL for token in tokens]
        words = tuple(pair for pair in self.words if pair[0] not in SPECIAL)
        return replace(self, attention=shared_out(self.attention, real), words=words)

    def strip(self, *, on_picture: bool = True, columns: int = 7) -> Image.Image:
        """A sheet of the image and one labelled map per word, `columns` per row."""
        picture = np.asarray(self.picture)
        size = (picture.shape[1], picture.shape[0])
        maps = [self.of(word) for word, _ in self.words]
        tiles = [over(m, picture) if on_picture else coloured(heat(m, size)) for m in maps]
        pictures, labels = [picture, *tiles], ["picture", *(word for word, _ in self.words)]
        starts = range(0, len(pictures), columns)
        return sheet([pictures[i : i + columns] for i in starts], [labels[i : i + columns] for i in starts])


@checked
def word_maps(
    prompt: str,
    *,
    model: Model | str = "toybox",
    grid: Grid = None,
    special: bool = False,
    renormalise: bool = False,
    budget: int | None = BUDGET,
    image: Given | Picture | None = None,
    inversion: str | None = None,
    times: Sequence[Number] | None = None,
    noises: int | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **options: Unpack[RunOptions],
) -> WordMaps:
    """Generate an image and record the cross-attention map of each word. `special` adds the start and end tokens.

    `image`, `inversion`, `times` and `noises`: an image that the prompt describes, instead of a generated one (see
    `look`).

    `grid`: the grid of the layers to read, a side or (height, width); "all" resizes those of all grids to the latent's
    and averages them (DAAM, arXiv 2210.04885); None is the grid that localises words best. `renormalise`: see
    `WordMaps.renormalised`. Options: the fields of `Settings`, as keywords or as `settings`. Raises PromptTooLong as
    `edit` does.
    """
    network = load_cached(model) if isinstance(model, str) else model
    run_settings = (settings or Settings()).with_(*split("word_maps", options, Settings))
    passes = NoisedPasses(None if times is None else tuple(times), noises)
    noising = noising_of(passes, run_settings, network, image=image is not None, inversion=inversion)
    recipe = single(network, "word_maps", prompt, run_settings, {}, image=image, inversion=inversion)
    here = bound_to(recipe, network, noising)
    kept = (columns(here.words[0]),) if any(site.kind == "joint" for site in here.sites) else None
    recorder = RecordMaps(text_sites(here.sites, here.map_sites, grid), columns=kept)
    check_budget(here, [recorder], budget)
    made = run_or_look(recipe, network, noising, [recorder], progress)
    maps = words_of(made, 0, special=special, kept=kept[0] if kept else None)
    return maps.renormalised() if renormalise else maps


def words_of(
    result: Result, row: int, *, recorder: int = 0, special: bool = False, kept: tuple[int, ...] | None = None
) -> WordMaps:
    """The word maps of a prompt of a run, from one of its recorders; `kept`: the tokens that it kept."""
    run = result.sample.run
    attention = mean_map(result, row, recorder)
    if kept is not None:
        whole = attention.new_zeros(*attention.shape[:2], run.words[row].limit)
        whole[..., list(kept)] = attention
        attention = whole
    picture = Image.fromarray(result.sample.pictures[row, 0])
    return WordMaps(run.prompts[row], picture, attention, named(run.words[row], special))


def mean_map(result: Result, row: int, recorder: int = 0) -> Float[Tensor, "height width channels"]:
    """The mean map of the first image of a prompt; maps of several grids are resized to the latent's."""
    hook = result.watched[recorder]
    assert isinstance(hook, RecordedMaps)
    grids = sorted({key[1] for key in hook.maps.keys(row)})
    means = [hook.maps.mean(row, grid)[0].to(torch.float32).cpu() for grid in grids]
    if len(grids) == 1:
        return means[0]
    return aggregated(means, [hook.maps.count(row, grid) for grid in grids], result.grid)

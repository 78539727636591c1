"""Maps before and after an edit, their difference, blend masks, and the alignment of the prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from promptweave.core.shown import brief
from promptweave.core.typed import checked
from promptweave.editing.recorders import columns
from promptweave.editing.result import Result
from promptweave.maps.word_maps import WordMaps, words_of
from promptweave.view.heat import over, signed
from promptweave.view.scale import with_scale
from promptweave.view.sheet import reduced, sheet
from promptweave.view.threads import Thread, drawn, threads
from promptweave.words import Pair, alignment

TILE = 256  # pixels of the longer side of an image on a sheet, at most


@dataclass(frozen=True, eq=False)
class EditMaps:
    """The word maps of an edit that was run with `maps=True`.

    `maps`: the effective maps of each prompt, edits included; `own`: each target's maps before the edit, from its own
    queries and keys, if recorded. Both are of the first image. `masks[target, step]`: where the local blend let the
    target differ from the source, on the latent's grid.
    """

    result: Result
    maps: tuple[WordMaps, ...]
    own: tuple[WordMaps, ...]
    masks: dict[tuple[int, int], Bool[Tensor, "height width"]]

    def __repr__(self) -> str:
        return brief(self, self.result.recipe.told)

    def pairs(self, target: int = 1) -> list[Pair]:
        """The words of the source and their counterparts in a target, without punctuation."""
        words = self.result.sample.run.words
        tokens = [{t for word in one.words for t in word.tokens} for one in (words[0], words[target])]
        return [
            pair
            for pair in alignment(words[0], words[target])
            if tokens[0] & set(pair.source_tokens) or tokens[1] & set(pair.target_tokens)
        ]

    def before(self, pair: Pair) -> Float[Tensor, "height width"]:
        """The source's map [height, width] of a pair's words; 0 if the source has none."""
        return self.maps[0].attention[..., list(pair.source_tokens)].sum(-1)

    def after(self, pair: Pair, target: int = 1, *, own: bool = False) -> Float[Tensor, "height width"]:
        """The target's map [height, width] of a pair's words, edited or its `own`; 0 if the target has none."""
        maps = self.own[target - 1] if own else self.maps[target]
        return maps.attention[..., list(pair.target_tokens)].sum(-1)

    def difference(self, pair: Pair, target: int = 1, *, own: bool = False) -> Float[Tensor, "height width"]:
        """The target's map minus the source's."""
        return self.after(pair, target, own=own) - self.before(pair)

    def sheet(self, target: int = 1, *, own: bool = False, words: Sequence[str] | None = None) -> Image.Image:
        """A sheet with a column for each pair of words: source, target and difference, on one scale per column.

        `words`: the words of source or target to show; None for all. Raises ValueError if there is none.
        """
        pictures = [reduced(self.maps[row].picture, TILE) for row in (0, target)]
        size = (pictures[0].shape[1], pictures[0].shape[0])
        pairs = [pair for pair in self.pairs(target) if words is None or {pair.source, pair.target} & set(words)]
        if not pairs:
            raise ValueError(
                f"None of the words {words} is in the prompts {self.result.recipe.prompts}. Choose others."
            )
        top = max(float(self.difference(pair, target, own=own).abs().max()) for pair in pairs)
        rows: list[list[np.ndarray]] = [[pictures[0]], [pictures[1]], [_legend(pictures[0])]]
        labels = [["source"], ["edit, its own maps" if own else "edit"], ["edit - source"]]
        for pair in pairs:
            maps = self.before(pair), self.after(pair, target, own=own)
            highest = max(float(one.max()) for one in maps)
            for row, (values, text) in enumerate(zip(maps, (pair.source, pair.target), strict=True)):
                tile = over(values, pictures[row], top=highest) if text else np.full_like(pictures[row], 235)
                rows[row].append(tile)
                labels[row].append(text or "(no such word)")
            rows[2].append(signed(self.difference(pair, target, own=own), size, top))
            labels[2].append(pair.kind)
        return with_scale(sheet(rows, labels), top)

    def mask_sheet(self, target: int = 1, *, every: int = 1, columns: int = 10) -> Image.Image:
        """The edit at each step, or every `every` steps; what the local blend took from the source is darkened."""
        found = {step: mask for (row, step), mask in self.masks.items() if row == target}
        found = dict(list(found.items())[::every])
        if not found:
            raise ValueError("Masks are made by a local blend, and this edit has none. Edit with blend=...")
        picture = reduced(self.maps[target].picture, TILE)
        tiles = [masked(picture, mask) for mask in found.values()]
        labels = [f"step {step}: {float(mask.float().mean()):.0%}" for step, mask in found.items()]
        starts = range(0, len(tiles), columns)
        return sheet([tiles[i : i + columns] for i in starts], [labels[i : i + columns] for i in starts])

    def threads(self, target: int = 1) -> list[Thread]:
        """The alignment of the prompts, as lines to draw."""
        return threads(self.result.report["alignment"][target - 1])

    def alignment_picture(self, target: int = 1) -> Image.Image:
        """A drawing of both prompts, with a line from each word to its counterpart."""
        return drawn(self.threads(target))


def masked(picture: np.ndarray, mask: Bool[Tensor, "height width"]) -> np.ndarray:
    """An image, uint8 [height, width, 3], darkened outside a mask."""
    size = (picture.shape[1], picture.shape[0])
    inside = np.asarray(Image.fromarray(mask.numpy()).convert("L").resize(size, Image.Resampling.NEAREST)) > 127
    return np.where(inside[..., None], picture, picture // 5 + 20).astype(np.uint8)


def masks_of(result: Result) -> dict[tuple[int, int], Bool[Tensor, "height width"]]:
    """(target, step) -> where the local blend let the first image differ from the source."""
    found: dict[tuple[int, int], Tensor] = {}
    for hooks in result.sample.hooks:
        masks: Mapping[int, Mapping[int, Any]] = getattr(hooks, "masks", {})
        for row, steps in masks.items():
            for step, mask in steps.items():
                found[row, step] = mask[0].cpu()
    return found


@checked
def edit_maps(result: Result) -> EditMaps:
    """The word maps of an edit that was run with `maps=True`. Raises ValueError if it was not."""
    if not result.watched:
        raise ValueError("The maps of an edit are recorded while it runs. Edit with maps=True.")
    words = result.sample.run.words
    kept = [columns(one) for one in words]
    maps = tuple(words_of(result, row, kept=kept[row]) for row in range(len(words)))
    edits = range(1, len(words) if len(result.watched) > 1 else 1)
    own = tuple(words_of(result, row, recorder=1, kept=kept[row]) for row in edits)
    return EditMaps(result, maps, own, masks_of(result))


def _legend(picture: np.ndarray) -> np.ndarray:
    return np.full_like(picture, 255)

"""Maps of chosen steps and layers, by head if requested: as a sheet, files or an animation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from promptweave.core.files import write_files
from promptweave.core.record_maps import RecordedMaps
from promptweave.core.shown import brief, short
from promptweave.editing.recorders import Named, at, columns, named, of_word
from promptweave.editing.result import Result
from promptweave.view.heat import coloured, heat, over
from promptweave.view.names import clamped, map_name
from promptweave.view.sheet import SMALLEST, grid_sheet, sheet

Key = tuple[int, str, int | None]  # step as requested, layer or grid, head
LARGEST = 16_000  # largest side of a sheet, in pixels


@dataclass(frozen=True, eq=False)
class Gallery:
    """`maps[step, place, head]` [height, width, tokens]: `place` is a layer, or a grid for the mean of its layers.

    `steps`: for each requested step its actual index and its time. `words`: those to show; `every` adds the start and
    end tokens. `notes`: where the gallery deviates from the request. `noised`: its steps are
    times of a noised image.
    """

    prompt: str
    picture: Image.Image
    words: Named
    every: Named
    maps: dict[Key, Float[Tensor, "height width tokens"]]
    steps: dict[int, tuple[int, int | float]]
    notes: tuple[str, ...] = ()
    noised: bool = False

    def __repr__(self) -> str:
        counts = f"{len(self.words)} words", f"{len(self.steps)} steps", f"{len(self.places)} layers or grids"
        return brief(self, short(self.prompt), *counts)

    def label(self, step: int) -> str:
        """What a requested step is called."""
        index, time = self.steps[step]
        if self.noised:
            return f"time {time:g}"
        return f"step {step}" if step == index else f"step {step} (last: {index})"

    @property
    def places(self) -> tuple[tuple[str, int | None], ...]:
        """The layers or grids, with their heads, in execution order."""
        return tuple(dict.fromkeys((place, head) for _, place, head in self.maps))

    def of(self, word: str, step: int, place: str | None = None, head: int | None = None) -> Tensor:
        """The map [height, width] of a word, summed over its tokens. `place` may be left out if there is only one."""
        tokens = of_word(self.every, word)
        if tokens is None:
            raise ValueError(f"{word!r} has no map. Choose one of {', '.join(dict(self.every))}.")
        key = (step, self.places[0][0] if place is None else place, head)
        if key not in self.maps:
            names = ", ".join(map_name(*key) for key in list(self.maps)[:12])
            raise ValueError(f"There is no map {map_name(*key)}. There are {names} ...")
        return self.maps[key][..., list(tokens)].sum(-1)

    def sheet(
        self, word: str | None = None, *, words: Sequence[str] | None = None, on_picture: bool = False
    ) -> Image.Image:
        """A row per step, and a column per layer and head (of one word) or per word (of the only layer or grid).

        `words`: those to show, None for all. Each column has one colour scale, so that its steps can be compared.
        """
        if len(self.places) > 1 and word is None:
            raise ValueError(f"A sheet of several layers shows one word. Choose one of {', '.join(dict(self.words))}.")
        if word is None:
            _, only, single = next(iter(self.maps))
            labels = [name for name, _ in self.words] if words is None else list(words)
            cells = [(name, only, single) for name in labels]
        else:
            cells = [(word, place, head) for place, head in self.places]
            labels = [place + ("" if head is None else f" head {head}") for place, head in self.places]
        tile = min(SMALLEST, LARGEST // len(cells), LARGEST // len(self.steps))
        if tile < 64:
            raise ValueError(
                f"A sheet has at most {LARGEST // 64} rows and columns. Received {len(self.steps)} steps and "
                f"{len(cells)} columns. Choose fewer layers or steps."
            )
        tops = [max(float(self.of(w, step, place, head).max()) for step in self.steps) for w, place, head in cells]
        rows = [
            [
                self._tile(self.of(name, step, place, head), top, tile, on_picture)
                for (name, place, head), top in zip(cells, tops, strict=True)
            ]
            for step in self.steps
        ]
        title = [self.prompt, f"the word: {word}" if word else f"mean of the layers of grid {cells[0][1]}"]
        return grid_sheet(rows, [self.label(step) for step in self.steps], labels, title=title, smallest=tile)

    def frames(self, columns: int = 7) -> list[Image.Image]:
        """One frame per step: the words of the only layer or grid, with one colour scale per word."""
        place, head = self.places[0]
        tops = {
            word: max(float(self.of(word, step, place, head).max()) for step in self.steps) for word, _ in self.words
        }
        made: list[Image.Image] = []
        for step, (index, _) in self.steps.items():
            named = self.label(step) if self.noised else f"step {index}"
            tiles = [self._tile(self.of(w, step, place, head), top, SMALLEST, True) for w, top in tops.items()]
            shown = [np.asarray(self.picture.resize(self._size(SMALLEST), Image.Resampling.LANCZOS)), *tiles]
            labels = [named, *tops]
            starts = range(0, len(shown), columns)
            made.append(sheet([shown[i : i + columns] for i in starts], [labels[i : i + columns] for i in starts]))
        return made

    def _tile(self, values: Tensor, top: float, tile: int, on_picture: bool) -> np.ndarray:
        picture = np.asarray(self.picture.resize(self._size(tile), Image.Resampling.LANCZOS))
        size = (picture.shape[1], picture.shape[0])
        return over(values, picture, top=top) if on_picture else coloured(heat(values, size, top))

    def _size(self, tile: int) -> tuple[int, int]:
        scale = tile / min(self.picture.size)
        return round(self.picture.width * scale), round(self.picture.height * scale)

    def images(self, *, words: Sequence[str] = (), side: int = 256, on_picture: bool = False) -> dict[str, Image.Image]:
        """File name -> map of one word over its own maximum, such as time_step_50_down_cross_0_res_64_4_dog.png: 50 is
        the step that was run, 4 the place of the word. `words`: those to write; empty: all."""
        made: dict[str, Image.Image] = {}
        for word in words:
            if of_word(self.every, word) is None:
                raise ValueError(f"{word!r} has no map. Choose one of {', '.join(dict(self.words))}.")
        chosen = [(number, word) for number, (word, _) in enumerate(self.words) if not words or word in words]
        chosen += [(len(self.words), word) for word in words if word not in dict(self.words)]  # phrases
        for step, place, head in self.maps:
            for number, word in chosen:
                values = self.of(word, step, place, head)
                name = f"{map_name(self.steps[step][0], place, head)}_{number}_{plain(word)}.png"
                made[name] = Image.fromarray(self._tile(values, float(values.max()), side, on_picture))
        return made

    def save(self, folder: Path | str, *, side: int = 256, on_picture: bool = False) -> list[Path]:
        """Write the images to a folder; returns their paths."""
        folder = Path(folder)
        made = self.images(side=side, on_picture=on_picture)
        write_files(folder, {name: image.save for name, image in made.items()})
        return [folder / name for name in made]


def plain(word: str) -> str:
    """A word in a form that fits into a file name."""
    return "".join(c if c.isalnum() or c in "-#" else "_" for c in word).replace("#", "-") or "word"


def gallery_of(
    result: Result, row: int, asked: Sequence[int] | None, *, recorder: int, special: bool = False
) -> Gallery:
    """The gallery of a prompt, from a recorder that kept its steps apart. `asked`: the steps, None for all."""
    hook, run = result.watched[recorder], result.sample.run
    assert isinstance(hook, RecordedMaps)
    taken = clamped(range(run.steps) if asked is None else tuple(dict.fromkeys(asked)), run.steps)
    maps: dict[Key, Tensor] = {}
    for step, index in taken.items():
        for key in hook.maps.keys(row, step=index):
            mean = hook.maps.mean(row, key[1], index)[0].to(torch.float32).cpu()
            for head in range(len(mean)) if mean.ndim == 4 else [None]:
                maps[step, key[1], head] = mean if head is None else mean[head]
    words = run.words[row]
    notes = [
        f"Step {step} is past the end; step {index} is shown instead." for step, index in taken.items() if step != index
    ]
    steps = {step: (index, hook.times[index]) for step, index in taken.items()}
    picture, kept = Image.fromarray(result.sample.pictures[row, 0]), columns(words)
    shown, every = (at(named(words, more), kept) for more in (special, True))
    noised = "times" in result.report.get("picture", {})
    return Gallery(run.prompts[row], picture, shown, every, maps, steps, tuple(notes), noised)

"""What each word looks at: heat maps of a prompt's words from one run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from promptweave.core.record_maps import RecordedMaps, RecordMaps
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.plan import settings
from promptweave.recipe import Recipe
from promptweave.sampling.loop import Progress, noise_for, sample
from promptweave.view.heat import coloured, heat, over
from promptweave.view.sheet import sheet


@dataclass(frozen=True, eq=False)
class WordMaps:
    """Cross-attention of a picture, mean over the layers of one grid, heads and steps: [height, width, tokens]."""

    prompt: str
    picture: Image.Image
    attention: Float[Tensor, "height width tokens"]
    words: tuple[tuple[str, tuple[int, ...]], ...]

    def of(self, word: str) -> Float[Tensor, "height width"]:
        """The map of a word of the strip, summed over its tokens."""
        known = dict(self.words)
        if word not in known:
            raise ValueError(f"{word!r} has no map. Words: {', '.join(known)}.")
        return self.attention[..., list(known[word])].sum(-1)

    def strip(self, *, on_picture: bool = True, columns: int = 7) -> Image.Image:
        """The picture and one labelled map per word, `columns` in a row."""
        picture = np.asarray(self.picture)
        size = (picture.shape[1], picture.shape[0])
        maps = [self.of(word) for word, _ in self.words]
        tiles = [over(m, picture) if on_picture else coloured(heat(m, size)) for m in maps]
        pictures, labels = [picture, *tiles], ["picture", *(word for word, _ in self.words)]
        starts = range(0, len(pictures), columns)
        return sheet([pictures[i : i + columns] for i in starts], [labels[i : i + columns] for i in starts])


def word_maps(
    prompt: str,
    *,
    model: Model | str = "toybox",
    seed: int = 0,
    steps: int | None = None,
    guidance: int | float | None = None,
    size: tuple[int, int] | None = None,
    special: bool = False,
    progress: Progress | None = None,
) -> WordMaps:
    """Generate a picture and record what each word looks at. `special` adds the start and end tokens.

    `steps` and `guidance` are those that suit the model, unless given.
    """
    network = load_cached(model) if isinstance(model, str) else model
    steps, guidance = settings(network, steps, guidance)
    Recipe(prompt, seed=seed).check()
    made = sample(
        network,
        [prompt],
        noise=noise_for(network, seed, 1, size),
        steps=steps,
        guidance=guidance,
        seed=seed,
        controls=[RecordMaps()],
        progress=progress,
    )
    recording = made.hooks[0]
    assert isinstance(recording, RecordedMaps)
    words = made.run.words[0]
    named: list[tuple[str, tuple[int, ...]]] = []
    for word in words.words:
        if word.tokens and word not in words.truncated:
            count = sum(name.partition("#")[0] == word.text for name, _ in named)
            named.append((f"{word.text}#{count + 1}" if count else word.text, word.tokens))
    if special:
        named = [("<start>", (0,)), *named, ("<end>", words.places[-1:])]
    attention = recording.maps.mean(0)[0].to(torch.float32).cpu()
    return WordMaps(prompt, Image.fromarray(made.pictures[0, 0]), attention, tuple(named))

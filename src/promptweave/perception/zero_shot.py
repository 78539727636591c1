"""Segmentation by words without training: the attention maps of one pass on the clean latent.

The text is a sentence of the words; each word's map is the mean over its tokens, divided by its largest value, and a
pixel gets the word whose map is largest there, or the ground if none reaches THRESHOLD of its largest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from promptweave.perception.extractor import Extractor

GROUND = "ground"
THRESHOLD = 0.4  # of a map's largest value
TIME = 300  # of 1000: a little noise level, at which the maps of text-to-image models are sharp


@torch.no_grad()
def word_regions(
    model: Any, picture: Float[Tensor, "height width 3"], words: Sequence[str], threshold: int | float = THRESHOLD
) -> Int[Tensor, "height width"]:
    """Labels [height, width] of an image in [0, 1]: 0 for the ground, i for the word number i, from 1 on."""
    extractor = Extractor(model, t=TIME)
    size = model.default_size
    x = picture.permute(2, 0, 1)[None].float()
    x = F.interpolate(x, size, mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    prompt = sentence(words)
    found = model.words(prompt)
    seen = extractor.see(extractor.latents(x), model.encode([prompt], [""]).cond)
    total: Any = 0
    for map in seen.maps:
        if map is not None:
            columns = torch.stack([map[0, list(found.find(word))].mean(0) for word in words]).float()
            share = columns / columns.sum(0, keepdim=True).clamp_min(1e-12) * columns
            total = total + F.interpolate(share[None], size, mode="bilinear")
    maps = F.interpolate(total, picture.shape[:2], mode="bilinear")[0]
    maps = maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)
    best, label = maps.max(0)
    return torch.where(best >= threshold, label + 1, 0)


def sentence(words: Sequence[str]) -> str:
    """The text in which the words are read.

    >>> sentence(["cat", "apple"])
    'a photo of a cat and an apple'
    """
    named = [f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}" for word in words]
    return f"a photo of {' and '.join(named)}"

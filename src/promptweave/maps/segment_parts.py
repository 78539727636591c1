"""Parts of a segmentation: refinement by self-attention, labels at full size, colours, and names of masks."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from promptweave.core.file_names import new_name
from promptweave.editing.fitting import Fitting

MOST = 255  # words, so that labels fit into a palette
# Okabe and Ito's colours, which people with any colour vision tell apart; index 0 is the background.
COLOURS = (
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip


def enlarged_labels(scores: Float[Tensor, "classes height width"], fitting: Fitting) -> np.ndarray:
    """The class of the highest score at each pixel of the image as it was given, uint8 [height, width].

    Scores are enlarged by linear interpolation. What the model did not see, cut off by the fit, is background.
    """
    (height, width), (high, wide) = fitting.given, fitting.size
    rows, columns = scores.shape[-2:]
    left, top, right, bottom = fitting.place  # of the image among the pixels that the model saw
    part = (left * columns / wide, top * rows / high, right * columns / wide, bottom * rows / high)
    x0, y0, x1, y1 = (round(edge) for edge in fitting.box)
    best, found = np.full((y1 - y0, x1 - x0), -np.inf, np.float32), np.zeros((y1 - y0, x1 - x0), np.uint8)
    for label, one in enumerate(scores.float().cpu().numpy()):
        grown = np.asarray(Image.fromarray(one).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=part))
        better = grown > best
        best, found = np.where(better, grown, best), np.where(better, np.uint8(label), found)
    labels = np.zeros((height, width), np.uint8)
    labels[y0:y1, x0:x1] = found
    return labels


def check_words(words: Sequence[str], background: Sequence[str]) -> tuple[str, ...]:
    """The words. Raises ValueError for none, too many, an empty one or one that stands twice."""
    named = tuple(" ".join(word.split()) for word in words)
    every = [word.lower() for word in (*named, *background)]
    if isinstance(words, str) or not named or len(named) > MOST or not all(every) or len(set(every)) < len(every):
        raise ValueError(
            f"words are 1 to {MOST} different words or phrases, such as ('cat', 'bike'), none of which is background. "
            f"Received {words!r}{f' and the background {list(background)}' if background else ''}."
        )
    return named


def mask_names(words: Sequence[str]) -> dict[str, str]:
    """File name -> word."""
    names: dict[str, str] = {}
    for word in words:
        names[new_name(f"mask-{word}", ".png", names)] = word
    return names


def colours(count: int) -> list[tuple[int, int, int]]:
    """The colours of so many labels."""
    further = [colorsys.hsv_to_rgb((0.1 + 0.381966 * n) % 1, 0.55 + 0.3 * (n % 2), 0.95) for n in range(count)]
    made = [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in further]
    return [*COLOURS, *made][:count]

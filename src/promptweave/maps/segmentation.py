"""Zero-shot segmentation by words: each pixel gets the named word that it attends to most, or the background.

The map m of a word (cross-attention, of passes over the noised image) is refined by self-attention and compared:

    m <- A^r m,    A [pixels, pixels]: the image's attention to itself, rows summing to 1,
    s = (m - min m) / (max m - min m),    label = argmax over the words of s where it exceeds `threshold`.

Multiplying by A spreads a word over what looks alike (DiffSegmenter, Wang et al. 2023, arXiv 2309.02773, equation 6,
with r = 1). By concepts (`concept_attention`), s is the fraction among the concepts, and words that are background
compete with the others.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Unpack

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from promptweave.core.clock import Number, fraction
from promptweave.core.fields import Option
from promptweave.core.files import Write, check_folder, write_files
from promptweave.core.typed import checked
from promptweave.editing.fitting import Fitting
from promptweave.editing.picture import Given, Picture
from promptweave.editing.pixels import open_image
from promptweave.editing.settings import RunOptions, Settings, split
from promptweave.editing.values import as_json, read_options
from promptweave.editing.who_reads import Unread
from promptweave.maps.concept_attention import Space
from promptweave.maps.look import Look, look
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.sampling.loop import Progress

MOST = 255  # words, so that labels fit into a palette
THRESHOLD = 0.4
RECORD = "segments.json"
# Okabe and Ito's colours, which people with any colour vision tell apart; index 0 is the background.
COLOURS = (
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip


@dataclass(frozen=True)
class Segmenting:
    """How an image is segmented."""

    prompt: Annotated[
        str | None, Option("What describes the image. [a photo of the words]", group="What changes", metavar="PROMPT")
    ] = None
    background: Annotated[
        tuple[str, ...],
        Option("Words of what is no object: they compete, and count as background.", group="What changes",
               metavar="WORDS"),
    ] = ()  # fmt: skip
    by: Annotated[
        Literal["words", "concepts"],
        Option("Attention to the words of the prompt, or concepts beside it (joint attention).", group="How strongly"),
    ] = "words"
    concept_space: Annotated[
        Literal["output", "cross"], Option("With concepts: what is compared, outputs of attention or queries and keys.")
    ] = "output"
    refine: Annotated[
        int, Option("How often maps are multiplied by self-attention; 0: never.", low=0, high=16)
    ] = 1  # fmt: skip
    threshold: Annotated[
        Number | None,
        Option("How much of its maximum a word needs, from its minimum; less is background. [0.4; concepts: 0]",
               low=0, high=1),
    ] = None  # fmt: skip

    def __post_init__(self) -> None:
        for name, value in read_options(Segmenting, vars(self)).items():
            object.__setattr__(self, name, value)
        if self.threshold is not None:
            fraction(self.threshold, "threshold")
        if self.by == "words" and self.concept_space != "output":
            raise Unread("concept_space is about concepts, and words are compared. Leave it out, or add by=concepts.")
        if not 0 <= self.refine <= 16:
            raise ValueError(f"refine must be a whole number from 0 to 16. Received {self.refine}.")

    @property
    def least(self) -> float:
        """The score of the background."""
        return float((0 if self.by == "concepts" else THRESHOLD) if self.threshold is None else self.threshold)

    def described(self, words: Sequence[str]) -> str:
        """The prompt: as given, or one that names the words."""
        if self.prompt is not None:
            return self.prompt
        named = [f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}" for word in words]
        return f"a photo of {' and '.join(named)}" + "".join(f", {word}" for word in self.background)


class SegmentOptions(RunOptions, total=False):
    """The fields of `Segmenting` and of `Settings` as keyword arguments."""

    prompt: str | None
    background: Sequence[str]
    by: Literal["words", "concepts"]
    concept_space: Space
    refine: int
    threshold: Number | None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What is where in an image.

    `labels`, uint8 [height, width] in the pixels of the given image: 0 is the background, n the word n - 1. `words`:
    those that were asked for. `scores`: what was compared, the background first, on the grid of the maps, which covers
    the part of the image that the model saw (`picture.fitting`). `image`: the given one, upright. `seen`: the look at
    it; `maps`: of the words and of those that are background, before refinement.
    """

    labels: np.ndarray
    words: tuple[str, ...]
    scores: Float[Tensor, "classes height width"]
    image: Image.Image
    picture: Picture
    how: Segmenting
    seen: Look
    maps: Float[Tensor, "height width terms"]

    def mask(self, word: str) -> np.ndarray:
        """Where a word is, bool [height, width]. Raises ValueError for a word that was not asked for."""
        if word not in self.words:
            raise ValueError(f"{word!r} was not segmented. Choose one of {', '.join(self.words)}.")
        return self.labels == self.words.index(word) + 1

    def fractions(self) -> dict[str, float]:
        """The fraction of the image that each word takes."""
        return {word: float(self.mask(word).mean()) for word in self.words}

    def indexed(self) -> Image.Image:
        """The labels as an image with a palette: the number of a pixel is its label."""
        made = Image.fromarray(self.labels, "P")
        made.putpalette([level for colour in colours(len(self.words) + 1) for level in colour])
        return made

    def overlay(self, strength: int | float = 0.6) -> Image.Image:
        """The labels in colour over the image, which shows through."""
        picture = np.asarray(self.image, np.float32)
        colour = np.array(colours(len(self.words) + 1), np.float32)[self.labels]
        share = np.where(self.labels[..., None] > 0, strength, 0.0)
        return Image.fromarray((picture * (1 - share) + colour * share).round().astype(np.uint8))

    def files(self) -> dict[str, Write]:
        """File name -> what writes it."""
        files: dict[str, Write] = {
            "labels.png": lambda path: self.indexed().save(path, "PNG"),
            "overlay.png": lambda path: self.overlay().save(path, "PNG"),
        }
        for name, word in mask_names(self.words).items():
            mask = Image.fromarray(self.mask(word).astype(np.uint8) * 255, "L")
            files[name] = lambda path, mask=mask: mask.save(path, "PNG")
        record = as_json(self.record(), indent=1) + "\n"
        files[RECORD] = lambda path: path.write_text(record, "utf-8")
        return files

    def record(self) -> dict[str, Any]:
        """Words with their labels, masks and fractions, and how they were found, as JSON values."""
        names, shares = {word: name for name, word in mask_names(self.words).items()}, self.fractions()
        recipe = self.seen.result.recipe
        return {
            "prompt": recipe.source,
            "model": {"name": recipe.model, "hash": self.seen.result.model_hash},
            "seed": recipe.seed,
            "words": [
                {"word": word, "label": label, "mask": names[word], "fraction": round(shares[word], 6)}
                for label, word in enumerate(self.words, 1)
            ],
            "options": {"by": self.how.by, "background": list(self.how.background), "refine": self.how.refine,
                        "threshold": self.how.least},
            **self.seen.result.report,
        }  # fmt: skip

    def save(self, folder: Path | str, *, force: bool = False) -> list[Path]:
        """Write labels.png (indexed), overlay.png, mask-WORD.png for each word, and segments.json: all or none.

        Raises FileExistsError if the folder holds a segmentation and `force` is not given.
        """
        check_segments(Path(folder), force=force)
        return write_files(Path(folder), self.files(), without=("mask-*.png",) if force else ())

    def _repr_png_(self) -> bytes:
        return self.overlay()._repr_png_()  # type: ignore[attr-defined]


def check_segments(folder: Path, *, force: bool) -> None:
    """Raise before any work is done if a segmentation cannot be written to a folder."""
    if (folder / RECORD).exists() and not force:
        raise FileExistsError(f"{folder} already holds a segmentation. Choose another folder, or replace it: force.")
    check_folder(folder)


@checked
def segment(
    image: Given | Picture,
    words: Sequence[str],
    *,
    model: Model | str = "toybox",
    inversion: str | None = None,
    times: Sequence[Number] | None = None,
    noises: int | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **options: Unpack[SegmentOptions],
) -> Segmentation:
    """Find where each of `words` is in an image, by what a text-to-image model attends to.

    Options: the fields of `Segmenting`: `prompt` (which has to contain the words), words that are `background`, `by`
    words or concepts, how often to `refine`, the `threshold` of the background; and those of `Settings` (`seed`,
    `size`, `fit`; by default the image keeps its shape, size="auto"). `times`, `noises` and `inversion`: as in `look`.
    Every named word is compared, whether it is in the image or not.
    """
    network = load_cached(model) if isinstance(model, str) else model
    asked, run_options = split("segment", options, Segmenting, Settings)
    how = Segmenting(**read_options(Segmenting, asked))
    wanted, run_settings = check_words(words, how.background), (settings or Settings()).with_(run_options)
    size = "auto" if run_settings.size is None else run_settings.size
    opened = open_image(image.image() if isinstance(image, Picture) else image)
    prompt = how.described(wanted)
    tokens = {} if how.by == "concepts" else {
        word: network.words(prompt).find(word) for word in (*wanted, *how.background)
    }  # fmt: skip
    keep = {name: value for name, value in vars(run_settings).items() if name != "size" and value is not None}
    seen = look(
        prompt, image=opened, model=network, inversion=inversion, times=times, noises=noises,
        self_attention=how.refine > 0, concepts=(*wanted, *how.background) if how.by == "concepts" else (),
        concept_space=how.concept_space, settings=Settings(size=size, **keep), progress=progress,
    )  # fmt: skip
    maps = _maps(seen, tokens)
    scores = compared(maps, seen, how, len(wanted))
    picture = seen.result.recipe.root.picture
    assert picture is not None
    labels = enlarged_labels(scores, picture.fitting)
    return Segmentation(labels, wanted, scores, opened.rgb(), picture, how, seen, maps)


def _maps(seen: Look, tokens: Mapping[str, tuple[int, ...]]) -> Float[Tensor, "height width words"]:
    if seen.concepts is not None:
        return seen.concepts.attention
    return torch.stack([seen.words.attention[..., list(columns)].sum(-1) for columns in tokens.values()], -1)


def compared(
    maps: Float[Tensor, "height width words"], seen: Look, how: Segmenting, wanted: int, *, refine: int | None = None
) -> Float[Tensor, "classes height width"]:
    """The scores of the background and of the first `wanted` words; `refine`: another number than `how` has."""
    times = how.refine if refine is None else refine
    if times and seen.self_attention is not None:
        maps = refined(maps, seen.self_attention.attention, times)
    if how.by == "words":
        low, high = maps.amin((0, 1)), maps.amax((0, 1))
        maps = (maps - low) / (high - low).clamp_min(1e-12)
    scores = maps.movedim(-1, 0)
    rest = torch.full_like(scores[:1], how.least)
    if len(scores) > wanted:
        rest = torch.maximum(rest, scores[wanted:].amax(0, keepdim=True))
    return torch.cat([rest, scores[:wanted]])


def refined(
    maps: Float[Tensor, "height width words"], attention: Float[Tensor, "height width pixels"], times: int
) -> Float[Tensor, "height width words"]:
    """Maps multiplied `times` times by the image's attention to itself, whose rows are made to sum to 1."""
    square = attention.flatten(0, 1)
    square = square / square.sum(-1, keepdim=True)
    flat = maps.flatten(0, 1).to(square)
    for _ in range(times):
        flat = square @ flat
    return flat.unflatten(0, maps.shape[:2])


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
        plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in word)
        name = f"mask-{plain}.png"
        while name.lower() in {known.lower() for known in names}:
            name = f"{name[:-4]}_.png"
        names[name] = word
    return names


def colours(count: int) -> list[tuple[int, int, int]]:
    """The colours of so many labels."""
    further = [colorsys.hsv_to_rgb((0.1 + 0.381966 * n) % 1, 0.55 + 0.3 * (n % 2), 0.95) for n in range(count)]
    made = [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in further]
    return [*COLOURS, *made][:count]

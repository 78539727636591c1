"""Zero-shot segmentation by words: each pixel gets the named word that it attends to most, or the background.

The map m of a word (cross-attention, of passes over the noised image) is refined by self-attention and compared:

    m <- A^r m,    A [pixels, pixels]: the image's attention to itself, rows summing to 1,
    s = (m - min m) / (max m - min m),    label = argmax over the words of s where it exceeds `threshold`.

Multiplying by A spreads a word over what looks alike (DiffSegmenter, Wang et al. 2023, arXiv 2309.02773, equation 6,
with r = 1). By concepts (`concept_attention`), s is the fraction among the concepts, and words that are background
compete with the others.
"""

from __future__ import annotations

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
from promptweave.core.record_maps import refined
from promptweave.core.shown import brief
from promptweave.core.typed import checked
from promptweave.editing.picture import Given, Picture
from promptweave.editing.pixels import open_image
from promptweave.editing.settings import RunOptions, Settings, split
from promptweave.editing.values import as_json, read_options
from promptweave.editing.who_reads import Unread
from promptweave.maps.concept_attention import Space
from promptweave.maps.look import Look, look
from promptweave.maps.segment_parts import check_words, colours, enlarged_labels, mask_names
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.sampling.loop import Progress

THRESHOLD = 0.4
RECORD = "segments.json"


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

    def __repr__(self) -> str:
        (height, width), found = self.labels.shape, self.fractions().items()
        return brief(self, f"{width}x{height} pixels", *(f"{word} {share:.0%}" for word, share in found))

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

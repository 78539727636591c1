"""What a person calls: segment an image, find what a phrase refers to, or estimate depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from promptweave.core.files import write_files
from promptweave.core.shown import brief, short
from promptweave.core.typed import checked
from promptweave.editing.pixels import open_image
from promptweave.maps.segmentation import segment as segment_words
from promptweave.models.base import Model
from promptweave.models.load import load_cached
from promptweave.perception.perceiver import SHIPPED, Perceiver
from promptweave.perception.tasks import TASKS
from promptweave.view.heat import coloured
from promptweave.view.labelled import legend, palette, tinted

MASKED = np.array([(0, 0, 0), (230, 40, 60)], dtype=np.uint8)  # colours of ground and mask
MILLIMETRES = 1000
GROUND = "ground"  # what none of the words is


@dataclass(frozen=True, eq=False)
class Perceived:
    """The answer for an image, uint8 [height, width, 3]. `answer` [height, width]: labels (uint8 or uint16, indices of
    `classes`), a mask (bool) or depth in metres (float32)."""

    task: str
    picture: np.ndarray
    answer: np.ndarray
    classes: tuple[str, ...] = ()
    phrase: str | None = None

    def __repr__(self) -> str:
        height, width = self.answer.shape
        return brief(self, self.task, "" if self.phrase is None else short(self.phrase), f"{width}x{height} pixels")

    @property
    def shares(self) -> dict[str, float]:
        """The share of the image's pixels that each class has, largest first; only for segment."""
        counts = np.bincount(self.answer.ravel().astype(np.int64), minlength=len(self.classes)) if self.classes else []
        found = {name: float(count) / self.answer.size for name, count in zip(self.classes, counts, strict=True)}
        return dict(sorted(((k, v) for k, v in found.items() if v), key=lambda pair: -pair[1]))

    @property
    def facts(self) -> dict[str, Any]:
        """The answer in numbers: shares of classes, the mask's share, or the range of the depth in metres."""
        if self.task == "segment":
            return {"shares": self.shares}
        if self.task == "refer":
            return {"mask": float(self.answer.mean())}
        return {"nearest": float(self.answer.min()), "farthest": float(self.answer.max())}

    def overlay(self) -> Image.Image:
        """The answer over the image, of its size: classes in colours, the rest darkened, or depth with near bright."""
        if self.task == "depth":
            near, far = float(self.answer.min()), float(self.answer.max())
            return Image.fromarray(coloured(1 - (self.answer - near) / max(far - near, 1e-6)))
        if self.task == "refer":
            dark = np.where(self.answer[..., None], self.picture, self.picture // 3)
            return Image.fromarray(tinted(dark, self.answer.astype(int), MASKED, 0.25))
        return Image.fromarray(tinted(self.picture, self.answer, palette(len(self.classes))))

    def drawn(self) -> Image.Image:
        """The overlay, with a legend."""
        if self.task == "depth":
            near, far = float(self.answer.min()), float(self.answer.max())
            return legend(self.overlay(), [f"{near:.1f} m", f"{far:.1f} m"], coloured(np.array([[1.0, 0.0]]))[0])
        if self.task == "refer":
            return legend(self.overlay(), [self.phrase or ""], MASKED[1:])
        colours, names = palette(len(self.classes)), list(self.shares)
        labels = [f"{name} {self.shares[name]:.0%}" for name in names]
        return legend(self.overlay(), labels, [colours[self.classes.index(name)] for name in names])

    def save(self, folder: Path, *, force: bool = False) -> list[Path]:
        """Write the drawing, the bare answer as a PNG and as a NumPy array, and return their paths.

        Raises FileExistsError, before anything is written, for files that are there, unless `force`.

        The bare answer is the labels, the mask (white is what is meant) or the depth in millimetres (16 bits).
        """
        bare = self.answer
        if self.task == "depth":
            bare = (self.answer * MILLIMETRES).round().clip(0, 65535).astype(np.uint16)
        elif self.task == "refer":
            bare = self.answer.astype(np.uint8) * 255
        files: dict[str, Callable[[Path], Any]] = {
            f"{self.task}.npy": lambda path: np.save(path, self.answer),
            f"{self.task}-bare.png": Image.fromarray(bare).save,
            f"{self.task}.png": self.drawn().save,
        }
        check_free(self.task, folder, force)
        return write_files(folder, files)


def check_free(task: str, folder: Path, force: bool) -> None:
    """Raise FileExistsError if an earlier answer to the task is in the folder and may not be replaced."""
    if not force and (folder / f"{task}.png").exists():
        raise FileExistsError(
            f"{folder / f'{task}.png'} exists. Choose another folder with -o, or replace it: --force."
        )


@checked
def perceive(
    image: Any,
    task: str = "segment",
    *,
    phrase: str | None = None,
    words: Sequence[str] | None = None,
    kind: str | None = None,
    weights: Path | str | Perceiver | None = None,
    model: Model | str = "toybox",
    flip: bool | None = None,
) -> Perceived:
    """Segment an image ("segment"), find what a phrase refers to ("refer") or estimate its depth ("depth").

    `image`: a path, a Pillow image, an array or a tensor, of any size. `words`: segment by these words alone, straight
    from attention maps, without a trained head, in any model; what none of them fits is "ground". `weights`: a file
    that `learn` or `promptweave perceive-train` wrote, or a perceiver; None: the head that comes with the package, for
    "toybox". `kind`: the class of the scene, for depth heads that read one. `flip`: also look at the mirror image and
    take the mean, not for "refer"; None: if the head has learned from such. Raises ValueError for arguments that do not
    belong to the task, and BadWeights.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}. Received {task!r}.")
    if (task == "refer") != bool(phrase and phrase.strip()):
        raise ValueError(
            f"A phrase belongs to the task refer, and to no other. Received phrase={phrase!r} with {task!r}. "
            + (
                "Say what is meant: --phrase 'the red car'."
                if task == "refer"
                else "Choose --task refer, or leave it out."
            )
        )
    if words is not None:
        return by_words(image, task, words, kind, weights, model, flip)
    perceiver = weights if isinstance(weights, Perceiver) else opened(task, weights, model)
    if perceiver.plan.task != task:
        raise ValueError(f"These weights were trained for {perceiver.plan.task!r}. Received task {task!r}.")
    if kind is not None and not perceiver.plan.kinds:
        raise ValueError(f"These weights read no class of the scene. Received kind={kind!r}. Leave it out.")
    picture = np.asarray(open_image(image).rgb())
    found = perceiver.answer(torch.from_numpy(picture.copy()).float() / 255, phrase=phrase, kind=kind, flip=flip)
    answer = found.cpu().numpy()
    if task == "segment":
        answer = answer.astype(np.uint8 if len(perceiver.plan.classes) < 256 else np.uint16)
        return Perceived(task, picture, answer, perceiver.plan.classes)
    if task == "refer":
        return Perceived(task, picture, answer, (), phrase)
    return Perceived(task, picture, answer.astype(np.float32))


def by_words(
    image: Any, task: str, words: Sequence[str], kind: str | None, weights: Any, model: Model | str, flip: bool | None
) -> Perceived:
    """Segmentation straight from attention maps (`maps.segmentation.segment`). Raises ValueError for arguments that
    belong to a trained head."""
    if task != "segment" or kind is not None or weights is not None or flip is not None:
        raise ValueError(
            "Words are looked for in attention maps, without a trained head: task segment, and neither kind, weights "
            f"nor flip. Received task={task!r}, kind={kind!r}, weights={weights!r}, flip={flip}. Leave out one or the "
            "other."
        )
    named = [word.strip() for word in words]
    if not named or not all(named) or len(set(named)) < len(named) or GROUND in named:
        raise ValueError(
            f"words is a list of different words, none of them {GROUND!r}. Received {words!r}. "
            'Write words=["cat", "bike"] (--words cat,bike).'
        )
    found = segment_words(image, named, model=model)
    return Perceived("segment", np.asarray(found.image), found.labels, (GROUND, *found.words))


def opened(task: str, weights: Path | str | None, model: Model | str) -> Perceiver:
    """The perceiver of a file, or the one that comes with the package. Raises ValueError for a model without one."""
    network = load_cached(model) if isinstance(model, str) else model
    if weights is not None:
        return Perceiver.load(weights, network)
    if network.name != "toybox":
        raise ValueError(
            f"The heads that come with the package are for the model toybox. Received {network.name!r}. Train one with "
            "promptweave perceive-train, and give its file with weights= (--weights)."
        )
    return _shipped(task, network)


@lru_cache(maxsize=len(TASKS))
def _shipped(task: str, network: Any) -> Perceiver:
    return Perceiver.load(SHIPPED / f"{task}.safetensors", network)

"""Experts of your own, from folders: CLIP, sentence encoders, and generators such as those of GANs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from promptweave.editing.pixels import open_image
from promptweave.models.vector_readers import ClipReader, SentenceReader
from promptweave.translation.experts import BATCH, Codes, NotAnExpert, fitting, no_images


class TextReaderExpert:
    """CLIP's text encoder or a sentence encoder (`models.vector_readers`): one vector for a text."""

    def __init__(self, reader: ClipReader | SentenceReader) -> None:
        self.reader, self.name = reader, f"the texts of {reader.name}"

    @property
    def dim(self) -> int:
        return self.reader.dim

    def encode(self, given: Sequence[str]) -> Codes:
        return self.reader.texts(given)

    def decode(self, codes: Codes) -> np.ndarray:
        raise no_images(self.name)


class ImageReaderExpert:
    """CLIP's image encoder: one vector for an image, of what it shows and how."""

    def __init__(self, reader: ClipReader) -> None:
        self.reader, self.name = reader, f"the images of {reader.name}"

    @property
    def dim(self) -> int:
        return self.reader.dim

    def encode(self, given: Sequence[Any]) -> Codes:
        return self.reader.images([open_image(one).rgb() for one in given])

    def decode(self, codes: Codes) -> np.ndarray:
        raise no_images(self.name)


class GeneratorExpert:
    """A generator without an encoder, such as that of a GAN, exported to a folder.

    The folder holds `decoder.pt2`, written by `torch.export.save`, which takes codes [n, dim] to images [n, 3, height,
    width], and `expert.json` with "dim", "range" (the values of black and white, such as [-1, 1]) and, for a truncated
    prior, "truncation". Codes are drawn (`draw`), not encoded: to train a flow, another expert reads the images that
    they decode to. An exported program is code: open only folders that you trust.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        values = _settings(self.folder)
        self.name = f"the generator in {self.folder}"
        self._dim, self.range, self.truncation = values["dim"], values["range"], values.get("truncation")
        program: Any = torch.export.load(self.folder / "decoder.pt2")
        self.generator = program.module()

    @property
    def dim(self) -> int:
        return self._dim

    def draw(self, count: int, generator: torch.Generator) -> Codes:
        """Codes from the generator's prior: normal, or redrawn until no number exceeds the truncation."""
        codes = torch.randn(count, self.dim, generator=generator)
        while self.truncation is not None and bool((beyond := codes.abs() > self.truncation).any()):
            codes[beyond] = torch.randn(int(beyond.sum()), generator=generator)
        return codes

    def encode(self, given: Sequence[Any]) -> Codes:
        raise NotAnExpert(
            f"{self.name[0].upper()}{self.name[1:]} has no encoder: its codes are drawn, or sampled by a flow. To edit "
            "an image of your own, take an expert with an encoder, such as the summary that ships."
        )

    @torch.no_grad()
    def decode(self, codes: Codes) -> np.ndarray:
        low, high = self.range
        made = torch.cat([self.generator(part) for part in fitting(codes, self).split(BATCH)])
        return ((made - low) / (high - low) * 255).clamp(0, 255).round().byte().permute(0, 2, 3, 1).numpy()


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "expert.json"
    wrong = f"The folder of a generator holds decoder.pt2 and expert.json with dim and range. {folder} "
    if not path.is_file() or not (folder / "decoder.pt2").is_file():
        raise NotAnExpert(wrong + "lacks one of them. Write the first with torch.export.save.")
    try:
        values = json.loads(path.read_text("utf-8"))
        dim, (low, high) = values["dim"], values["range"]
        valid = type(dim) is int and dim > 0 and high > low and 0 < values.get("truncation", 1)
    except (ValueError, KeyError, TypeError) as error:
        raise NotAnExpert(
            wrong + f'has another expert.json: {error!r}. Write {{"dim": 128, "range": [-1, 1]}}.'
        ) from error
    if not valid:
        raise NotAnExpert(wrong + f'says {values}. Write {{"dim": 128, "range": [-1, 1]}}.')
    return values

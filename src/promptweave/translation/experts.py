"""Experts: frozen networks that a flow translates between, behind one protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptweave.core.files import write_file
from promptweave.editing.picture import Picture
from promptweave.models.load import load_cached
from promptweave.translation.refining import Refiner
from promptweave.translation.summary import Summary, SummarySizes

Codes = Float[Tensor, "n dim"]
BATCH = 16  # images at a time
DOMAINS = (("photo", "sketch"), ("day", "night"))  # labels of the world


class NotAnExpert(ValueError):
    """Raised for what cannot be a network of a translation: a folder without one, a code of another size."""


@runtime_checkable
class Expert(Protocol):
    """A frozen network with a vector for each of its inputs."""

    name: str

    @property
    def dim(self) -> int:
        """Size of a code."""
        ...

    def encode(self, given: Sequence[Any]) -> Codes:
        """The codes of inputs: prompts, labels or images, as the expert takes them."""
        ...

    def decode(self, codes: Codes) -> np.ndarray:
        """The images of codes, uint8 [n, height, width, 3]. Raises NotAnExpert if the expert makes none."""
        ...


class PromptExpert:
    """The text encoder of a model: the mean of the prompt's tokens, and its last token, which has seen all others.

    The start, end and padding tokens have no part: in the embedded models they say nothing.
    """

    def __init__(self, model: Any = "toybox") -> None:
        self.model = load_cached(model) if isinstance(model, str) else model
        self.name = f"the text encoder of {self.model.name}"

    @cached_property
    def _dim(self) -> int:
        return int(self.encode(["a cat"]).shape[1])

    @property
    def dim(self) -> int:
        return self._dim

    @torch.no_grad()
    def encode(self, given: Sequence[str]) -> Codes:
        """One code for each prompt. Raises ValueError for an empty prompt, and PromptTooLong."""
        text = self.model.encode(list(given), [""] * len(given)).cond.float().cpu()
        columns = [list(self.model.words(prompt).places[1:-1]) for prompt in given]
        tokens = [row[places] for row, places in zip(text, columns, strict=True)]
        return torch.stack([torch.cat([one.mean(0), one[-1]]) for one in tokens])

    def decode(self, codes: Codes) -> np.ndarray:
        raise no_images(self.name)


class LabelExpert:
    """Labels in groups of alternatives as ones and zeros: "photo, night" of (photo, sketch) and (day, night)."""

    def __init__(self, groups: Sequence[Sequence[str]]) -> None:
        self.groups = tuple(tuple(group) for group in groups)
        self.labels = tuple(label for group in self.groups for label in group)
        self.name = "labels " + " and ".join("/".join(group) for group in self.groups)

    @property
    def dim(self) -> int:
        return len(self.labels)

    def encode(self, given: Sequence[str]) -> Codes:
        """One code for each text with one label of each group. Raises ValueError for other texts."""
        codes = torch.zeros(len(given), self.dim)
        for code, text in zip(codes, given, strict=True):
            words = text.replace(",", " ").split()
            if any(sum(word in group for word in words) != 1 for group in self.groups) or set(words) - {*self.labels}:
                rule = " and ".join(f"one of {', '.join(group)}" for group in self.groups)
                raise ValueError(f"This translator takes {rule}. Received {text!r}.")
            code[[self.labels.index(word) for word in words]] = 1.0
        return codes

    def decode(self, codes: Codes) -> np.ndarray:
        raise no_images(self.name)


class LatentExpert:
    """The autoencoder of a model as it is: all its latents in one vector (2048 numbers for the embedded models)."""

    def __init__(self, model: Any = "toybox") -> None:
        self.model = load_cached(model) if isinstance(model, str) else model
        self.name = f"the autoencoder of {self.model.name}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents."""
        height, width = self.model.default_size
        return self.model.channels, height // self.model.factor, width // self.model.factor

    @property
    def dim(self) -> int:
        channels, height, width = self.shape
        return channels * height * width

    def latents(self, given: Sequence[Any]) -> Float[Tensor, "n channels height width"]:
        """The latents of images: paths, Pillow images, arrays or tensors, fitted to the model's size."""
        size = self.model.default_size
        arrays = [np.asarray(Picture.of(one, size).image().convert("RGB"), dtype=np.float32) / 255 for one in given]
        parts = [np.stack(arrays[i : i + BATCH]) for i in range(0, len(arrays), BATCH)]
        return torch.cat([self.model.to_latent(torch.from_numpy(part)).float().cpu() for part in parts])

    def encode(self, given: Sequence[Any]) -> Codes:
        return self.latents(given).flatten(1)

    def decode(self, codes: Codes) -> np.ndarray:
        return self.pictures(fitting(codes, self).unflatten(1, self.shape))

    def pictures(self, latents: Float[Tensor, "n channels height width"]) -> np.ndarray:
        """The images of latents, uint8."""
        made = torch.cat([self.model.to_image(part) for part in latents.split(BATCH)])
        return (made * 255).round().byte().numpy()


class SummaryExpert:
    """The autoencoder of the embedded models behind a summary of its latents: a short code for an image.

    `refiner`: what sharpens the latents of codes (`refining.Refiner`); None leaves them blurred, as a short code does.
    """

    def __init__(self, summary: Summary, latent: LatentExpert | None = None, refiner: Refiner | None = None) -> None:
        self.summary, self.latent, self.refiner = summary.eval(), latent or LatentExpert(), refiner
        self.name = f"a summary of {self.latent.name}"

    @classmethod
    def load(cls, path: Path, latent: LatentExpert | None = None, refiner: Refiner | None = None) -> SummaryExpert:
        """Read what `save` wrote. Raises NotAnExpert for another file."""
        sizes, tensors = read_tensors(path, "summary")
        summary = Summary(SummarySizes(**sizes))
        summary.load_state_dict(tensors)
        return cls(summary, latent, refiner)

    def save(self, path: Path) -> None:
        """Write the summary's weights in half precision. Raises CannotWrite."""
        write_tensors(path, "summary", asdict(self.summary.sizes), self.summary.state_dict())

    @property
    def dim(self) -> int:
        return self.summary.sizes.dim

    @torch.no_grad()
    def encode(self, given: Sequence[Any]) -> Codes:
        return self.summary.posterior(self.latent.latents(given))[0]

    @torch.no_grad()
    def decode(self, codes: Codes) -> np.ndarray:
        latents = self.summary.decode(fitting(codes, self))
        return self.latent.pictures(latents if self.refiner is None else self.refiner(latents))


def no_images(name: str) -> NotAnExpert:
    """The error for an expert that makes no images."""
    return NotAnExpert(f"A translation ends in an expert that makes images. Received {name}, which only reads.")


def fitting(codes: Tensor, expert: Expert) -> Codes:
    """The codes, if they are those of the expert."""
    if codes.ndim != 2 or codes.shape[1] != expert.dim:
        raise NotAnExpert(
            f"Codes of {expert.name} are [n, {expert.dim}]. Received {list(codes.shape)}. Encode them with this expert."
        )
    return codes


def write_tensors(path: Path, kind: str, sizes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a network of a translation as .safetensors, in half precision. Raises CannotWrite."""
    from safetensors.torch import save_file

    whole = {k: (v.half() if v.is_floating_point() else v).cpu().contiguous() for k, v in tensors.items()}
    write_file(path, lambda fresh: save_file(whole, fresh, {"kind": kind, "sizes": json.dumps(sizes)}))


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Sizes and weights (in single precision) of a network that `write_tensors` wrote. Raises NotAnExpert."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise NotAnExpert(
            f"{path} cannot be read as the weights of a {kind}: {error}. Train them with: promptweave net2net train"
        ) from error
    if about.get("kind") != kind:
        raise NotAnExpert(f"{path} must hold a {kind}. Received {about.get('kind', 'another file')}.")
    return json.loads(about["sizes"]), {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}

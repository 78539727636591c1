"""Images that were inverted once, to be edited many times, and how their inversions are stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from promptweave.editing.inversions import read_inversion
from promptweave.editing.recipe import BrokenRecipe, Recipe
from promptweave.editing.values import as_json
from promptweave.inversion import Inverted
from promptweave.models.base import Model

FORMAT = 1


@dataclass(frozen=True, eq=False)
class InvertedImage:
    """An input image, inverted for a run of `recipe`; `hash` identifies the model's weights.

    Given to `edit` as its source, in place of a prompt and an image. `psnr`: of the image as the source's row of that
    run makes it, to the input image, in dB.
    """

    row: ClassVar[int] = 0
    track: ClassVar[None] = None
    recipe: Recipe
    hash: str
    inverted: Inverted
    psnr: float

    @property
    def prompt(self) -> str:
        """The prompt of the image."""
        return self.recipe.source

    def check(self, model: Model) -> None:
        """Raise ValueError unless `model` is the one that inverted the image."""
        if model.fingerprint() != self.hash or model.scheduler != self.recipe.scheduler:
            raise ValueError(
                f"An inverted image is edited with the model that inverted it, {self.recipe.model} with weights "
                f"{self.hash} and scheduler {self.recipe.scheduler}. Received {model.name}, {model.fingerprint()}, "
                f"{model.scheduler}. Load that model, or invert anew."
            )

    def save(self, path: Path | str) -> Path:
        """Write a .safetensors file."""
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"An inverted image is saved as a .safetensors file. Received {path}.")
        record = {
            "format": FORMAT, "recipe": self.recipe.as_dict(), "hash": self.hash, "psnr": self.psnr,
            "inverted": inverted_record(self.inverted),
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        save_file(inverted_tensors(self.inverted), partial, metadata={"promptweave-inverted": as_json(record)})
        partial.replace(path)
        return path

    @classmethod
    def load(cls, path: Path | str) -> InvertedImage:
        """Load a file that `save` wrote. Raises BrokenRecipe."""
        try:
            with safe_open(str(path), framework="pt") as file:
                record = json.loads((file.metadata() or {})["promptweave-inverted"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            if record["format"] != FORMAT:
                raise ValueError(f"it has format {record['format']!r}, not {FORMAT}")
            inverted = read_inverted(record["inverted"], tensors)
            if inverted is None:
                raise ValueError("it holds no inversion")
            return cls(Recipe.from_dict(record["recipe"]), str(record["hash"]), inverted, float(record["psnr"]))
        except (OSError, BrokenRecipe):
            raise
        except Exception as error:
            raise BrokenRecipe(f"{path} is not an inverted image: {error}. Invert the image anew.") from error


def holds_inversion(path: Path | str) -> bool:
    """Whether a .safetensors file is that of an inverted image."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return "promptweave-inverted" in (file.metadata() or {})
    except OSError:
        raise
    except Exception:  # not a safetensors file: its reader says so
        return False


def inverted_tensors(inverted: Inverted) -> dict[str, Tensor]:
    """The tensors of an inversion by name, for a file."""
    more = {f"inverted.more.{name}": x.detach().cpu().contiguous() for name, x in inverted.more.items()}
    return {"inverted.path": torch.stack([z.detach().cpu() for z in inverted.path]).contiguous(), **more}


def inverted_record(inverted: Inverted) -> dict[str, Any]:
    """What a file tells of an inversion beside its tensors."""
    return {"inversion": inverted.method.spec, "figures": dict(inverted.figures)}


def read_inverted(record: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]) -> Inverted | None:
    """The inverse of `inverted_record` and `inverted_tensors`. Raises BrokenRecipe."""
    if record is None:
        return None
    try:
        begin = "inverted.more."
        more = {name.removeprefix(begin): x for name, x in tensors.items() if name.startswith(begin)}
        figures = {str(name): value for name, value in record["figures"].items()}
        return Inverted(tuple(tensors["inverted.path"]), read_inversion(record["inversion"]), more, figures)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BrokenRecipe(f"The inversion in this file cannot be read: {error}. Invert the image anew.") from error

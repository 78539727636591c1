"""Images that were inverted once, to be edited many times, and how their inversions are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from promptweave.core.aligned import aligned
from promptweave.core.files import write_file
from promptweave.core.shown import brief
from promptweave.editing.inversions import read_inversion
from promptweave.editing.json_text import read_json
from promptweave.editing.recipe import BrokenRecipe, Recipe
from promptweave.editing.values import BadValue, as_json, read_value
from promptweave.inversion import Inverted
from promptweave.models.base import Model
from promptweave.sampling.loop import latent_grid

FORMAT = 1
HEADER = {"recipe": Mapping[str, Any], "hash": str, "psnr": float, "inverted": Mapping[str, Any]}


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

    def __repr__(self) -> str:
        return brief(self, self.recipe.told, f"inversion {self.inverted.method.spec}", f"PSNR {self.psnr:.1f} dB")

    @property
    def prompt(self) -> str:
        """The prompt of the image."""
        return self.recipe.source

    def check(self, model: Model) -> None:
        """Raise ValueError unless `model` is the one that inverted the image; BrokenRecipe for a damaged file."""
        check_maker(model, self.recipe, self.hash, "An inverted image", "invert")
        shape = (self.recipe.images, model.channels, *latent_grid(model, self.recipe.size))
        if self.inverted.noise.shape != shape:
            raise BrokenRecipe(
                "This inverted image is damaged: its latents are not those of its model. Invert it again."
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
        header, tensors = {"promptweave-inverted": as_json(record)}, inverted_tensors(self.inverted)
        return write_file(path, lambda fresh: save_file(tensors, fresh, metadata=header))

    @classmethod
    def load(cls, path: Path | str) -> InvertedImage:
        """Load a file that `save` wrote. Raises BrokenRecipe, and FileNotFoundError."""
        try:
            with safe_open(str(path), framework="pt") as file:
                text = (file.metadata() or {}).get("promptweave-inverted", "{}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            record = read_value(Mapping[str, Any], read_json(text), "its header")
            if record.get("format") != FORMAT:
                raise BadValue(f"it has no header of format {FORMAT}")
            header = {name: read_value(kind, record.get(name), name) for name, kind in HEADER.items()}
        except FileNotFoundError as error:
            raise FileNotFoundError(f"There is no file {path}. Give the path of a .safetensors file.") from error
        except OSError:
            raise
        except Exception as error:  # any error of the reader on a damaged file
            raise BrokenRecipe(f"{path} is not an inverted image: {error}. Invert the image again.") from error
        recipe = Recipe.from_dict(header["recipe"])
        inverted = read_inverted(path, header["inverted"], tensors, recipe)
        if inverted is None or recipe.picture is None:
            raise BrokenRecipe(f"{path} holds no image, or no inversion of it. Invert the image again.")
        return cls(recipe, header["hash"], inverted, header["psnr"])


def check_maker(model: Model, recipe: Recipe, hash: str, what: str, again: str) -> None:
    """Raise ValueError unless `model` is the one with which a source of edits was made."""
    if model.fingerprint() != hash or model.scheduler != recipe.scheduler:
        raise ValueError(
            f"{what} is edited with the model that made it, {recipe.model} with weights {hash} and scheduler "
            f"{recipe.scheduler}. Received {model.name}, {model.fingerprint()}, {model.scheduler}. Load that model, or "
            f"{again} again."
        )


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


def read_inverted(path: Path | str, record: Any, tensors: Mapping[str, Tensor], recipe: Recipe) -> Inverted | None:
    """The inverse of `inverted_record` and `inverted_tensors`, checked. Raises BrokenRecipe."""
    if record is None:
        return None
    begin = "inverted.more."
    more = {name.removeprefix(begin): x for name, x in tensors.items() if name.startswith(begin)}
    try:
        read = read_value(Mapping[str, Any], record, "inverted")
        method = read_inversion(read_value(str, read.get("inversion"), "inverted.inversion"))
        figures = read_value(Mapping[str, float], read.get("figures"), "inverted.figures")
    except ValueError as error:
        raise BrokenRecipe(f"The inversion in {path} cannot be read: {error} Invert the image again.") from error
    latents = tensors.get("inverted.path")
    if latents is None or latents.ndim != 5 or latents.shape[:2] != (recipe.steps + 1, recipe.images):
        raise BrokenRecipe(
            f"{path} is damaged: it lacks the latents of its {recipe.steps} steps. Invert the image again."
        )
    missing = [name for name, axes in method.tensors.items() if name not in more or more[name].ndim != axes]
    if missing:
        raise BrokenRecipe(f"{path} is damaged: its inversion lacks {', '.join(missing)}. Invert the image again.")
    return Inverted(tuple(latents), method, {name: aligned(x) for name, x in more.items()}, figures)

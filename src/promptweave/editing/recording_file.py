"""Recordings as .safetensors files: tensors, and a header that is checked like any foreign data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from promptweave.core.files import write_file
from promptweave.core.kept import Kept
from promptweave.core.pattern import Pattern, Softmax, Term
from promptweave.core.rows import Row
from promptweave.core.shown import shown
from promptweave.editing.computed import Computed
from promptweave.editing.inverted_file import inverted_record, inverted_tensors, read_inverted
from promptweave.editing.json_text import BadJson, read_json
from promptweave.editing.recipe import BrokenRecipe, Recipe
from promptweave.editing.values import BadValue, as_json, nearest, read_options, read_value
from promptweave.inversion import Inverted
from promptweave.sampling.recording import Key, Track

FORMAT = 1
Name = str | None
HEADER = {"recipe": Mapping[str, Any], "row": int, "hash": str, "kept": Mapping[str, Any], "rows": tuple[Any, ...]}
LINE = tuple[int, int, str, str, str, Name, tuple[tuple[str, str, Name, Name], ...] | None]


def write_recording(
    path: Path,
    recipe: Recipe,
    row: int,
    track: Track,
    hash: str,
    inverted: Inverted | None = None,
    computed: Computed | None = None,
) -> None:
    """Write a recording, whole or not at all. Raises CannotWrite."""
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}

    def name(x: Tensor | None) -> str | None:
        if x is None:
            return None
        if id(x) not in names:
            names[id(x)] = f"t{len(names)}"
            tensors[names[id(x)]] = x.detach().cpu().contiguous()
        return names[id(x)]

    rows: list[Any] = []
    for (step, call, site), kept in track.rows.items():
        terms = None
        if kept.edited is not None:
            terms = [
                [name(t.kernel.q), name(t.kernel.k), name(t.tokens), name(t.gate)]
                for t in kept.edited.terms
                if isinstance(t.kernel, Softmax)
            ]
        rows.append([step, call, site, name(kept.q), name(kept.k), name(kept.values), terms])
    tensors["path"] = torch.stack([x.cpu() for x in track.path])
    tensors["pictures"] = torch.from_numpy(track.pictures.copy())
    tensors |= {} if inverted is None else inverted_tensors(inverted)
    record = {
        "format": FORMAT, "recipe": recipe.as_dict(), "row": row, "hash": hash, "rows": rows,
        "kept": asdict(track.kept), "inverted": None if inverted is None else inverted_record(inverted),
        "computed": (computed or Computed()).as_dict(),
    }  # fmt: skip
    write_file(path, lambda fresh: save_file(tensors, fresh, metadata={"promptweave": as_json(record)}))


def read_recording(
    path: Path | str, device: torch.device | str = "cpu"
) -> tuple[Recipe, int, Track, str, Inverted | None, Computed]:
    """The parts of a memory-mapped recording. `device`: where the edits will run.

    Raises BrokenRecipe, which names the part of the header that is wrong, and FileNotFoundError.
    """
    record, tensors = _parts(Path(path))
    try:
        header = {name: read_value(kind, record.get(name), name) for name, kind in HEADER.items()}
        lines = [read_value(LINE, line, f"rows[{number}]") for number, line in enumerate(header["rows"])]
        kept = _kept(header["kept"])
        computed = Computed.from_dict(record.get("computed", {}))
    except BadValue as error:
        raise BrokenRecipe(f"The header of {path} cannot be read: {error} Record it again.") from error
    recipe = Recipe.from_dict(record["recipe"])
    if not 0 <= header["row"] < len(recipe.prompts):
        raise BrokenRecipe(f"{path} has a row of a run of {len(recipe.prompts)} prompts. Received {header['row']}.")
    _check_images(path, recipe, tensors)

    def get(name: str, axes: int = 4) -> Tensor:
        found = tensors.get(name)
        if found is None or found.ndim != axes or not found.is_floating_point():
            raise BrokenRecipe(
                f"{path} is damaged: the tensor {shown(name)} is missing or has another form. Record it again."
            )
        return found

    def gate(name: str | None) -> Tensor | None:
        return None if name is None else get(name, tensors[name].ndim if name in tensors else 4)

    def pair(first: str, second: str) -> tuple[Tensor, Tensor]:
        q, k = get(first), get(second)
        if (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]):
            raise BrokenRecipe(f"{path} is damaged: {first} and {second} do not belong together. Record it again.")
        return q, k

    rows: dict[Key, Row] = {}
    for step, call, site, q, k, v, terms in lines:
        edited = None
        if terms is not None:
            edited = Pattern(tuple(Term(Softmax(*pair(a, b)), gate(c), gate(d)) for a, b, c, d in terms))
        rows[step, call, site] = Row(*pair(q, k), None if v is None else pair(q, v)[1], edited)
    track = Track(kept, list(tensors["path"]), rows, tensors["pictures"].numpy(), torch.device(device))
    inverted = read_inverted(path, record.get("inverted"), tensors, recipe)
    return recipe, header["row"], track, header["hash"], inverted, computed


def _parts(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file."""
    if path.is_dir():
        raise BrokenRecipe(f"{path} is a folder, not a recording. Give the path of a .safetensors file.")
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get("promptweave", "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        record = read_json(text)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no recording {path}. Give the path of a .safetensors file.") from error
    except BadJson as error:
        raise BrokenRecipe(f"{path} is not a recording: {error} Record it again.") from error
    except OSError:
        raise
    except Exception as error:  # any error of the reader on a damaged file
        raise BrokenRecipe(f"{path} is not a recording: {error}. Record it again.") from error
    if not isinstance(record, dict) or isinstance(record.get("format"), bool) or record.get("format") != FORMAT:
        raise BrokenRecipe(f"{path} is not a recording of format {FORMAT}. Record it again.")
    return record, tensors


def _kept(values: Mapping[str, Any]) -> Kept:
    """The windows of a recording. Raises BadValue."""
    known = list(asdict(Kept()))
    for name in values:
        if name not in known:
            raise BadValue(f"kept has no field {shown(name)}. {nearest(name, known)}")
    return Kept(**read_options(Kept, values))


def _check_images(path: Path | str, recipe: Recipe, tensors: Mapping[str, Tensor]) -> None:
    """Raise BrokenRecipe unless there are latents for every step and pictures for every image."""
    latents, pictures = tensors.get("path"), tensors.get("pictures")
    if latents is None or latents.ndim != 5 or latents.shape[:2] != (recipe.steps + 1, recipe.images):
        raise BrokenRecipe(f"{path} is damaged: it lacks the latents of its {recipe.steps} steps. Record it again.")
    if pictures is None or pictures.dtype != torch.uint8 or pictures.ndim != 4 or len(pictures) != recipe.images:
        raise BrokenRecipe(f"{path} is damaged: it lacks its {recipe.images} images. Record it again.")

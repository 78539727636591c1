"""The weight files of a pipeline's folder: whole, and of a kind that is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptweave.models.configs import BadConfig, own_config, parts_of, read_object
from promptweave.models.foreign import UNFINISHED, header, told

SHARDS = ".index.json"
PICKLED = (".bin", ".pt", ".ckpt")
HALVES = "fp16"  # the variant that many folders have alone


def check_weights(folder: Path, index: Mapping[str, Any], allow_pickle: bool) -> None:
    """Raise ValueError for a part without weights, or with damaged ones."""
    for name, _, kind in parts_of(dict(index)):
        config = own_config(folder / name, kind)
        if config is None or config.name != "config.json":
            continue
        files = sorted(path for path in (folder / name).iterdir() if path.is_file())
        tensors = [path for path in files if path.suffix == ".safetensors"]
        pickles = [path for path in files if path.suffix in PICKLED]
        if not tensors and not (pickles and allow_pickle):
            half = [path.name for path in files if path.suffix in UNFINISHED]
            what = f"an unfinished download, {half[0]}" if half else "no weights"
            if pickles:
                what = (
                    "only pickled weights, which can run any code: allow them with allow_pickle=True (--allow-pickle) "
                    "if you trust their source"
                )
            raise ValueError(f"{folder / name}, the folder of a {kind}, holds {what}")
        for path in tensors:
            found = told(path)
            if found is not None:
                raise ValueError(f"{path} is {found[0]}. {found[1]}")
            header(path)
        for path in files:
            if path.name.endswith(SHARDS):
                _check_shards(path)


def _check_shards(path: Path) -> None:
    places = read_object(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise BadConfig(f"{path}: weight_map must name a file for each tensor.")
    missing = sorted({name for name in places.values() if not (path.parent / name).is_file()})
    if missing:
        raise ValueError(f"{path.parent} lacks {missing[0]}, and {len(missing)} files in all. Download them, too")


def variant(folder: Path, index: Mapping[str, Any]) -> dict[str, str]:
    """The option that reads the half-precision files of a folder that has no others."""
    names = [name for name, _, _ in parts_of(dict(index))]
    files = [path.name for name in names for path in (folder / name).glob("*.safetensors")]
    return (
        {"variant": HALVES} if files and all(f".{HALVES}." in name or f".{HALVES}-" in name for name in files) else {}
    )

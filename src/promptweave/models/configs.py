"""The JSON files of a pipeline's folder, checked before diffusers and transformers read them.

Both fill in what is missing and take what they are given; a config that is a text even makes diffusers ask a hub for a
model of that name. Every error here names the file, and the key if there is one.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

LIBRARIES = ("diffusers", "transformers", "latent_diffusion")  # the last is a package of diffusers' pipelines
INDEX = "model_index.json"
CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
UNLOADED = ("safety_checker",)
Index = dict[str, Any]


class BadConfig(ValueError):
    """A config file that cannot be used."""


def read_index(folder: Path) -> Index:
    """The `model_index.json` of a pipeline: its class, its parts, and its settings. Raises BadConfig."""
    path = folder / INDEX
    index = read_object(path)
    if not isinstance(index.get("_class_name"), str):
        raise BadConfig(f"{path}: _class_name must be the name of a pipeline. Received {index.get('_class_name')!r}.")
    for name, value in index.items():
        if isinstance(value, list) and not name.startswith("_") and value != [None, None]:
            fits = len(value) == 2 and all(isinstance(each, str) for each in value)
            if not fits or (value[0] not in LIBRARIES and name not in UNLOADED):
                raise BadConfig(
                    f"{path}: {name} must be [library, class] with one of the libraries {', '.join(LIBRARIES)}. "
                    f"Received {value}."
                )
    return index


def parts_of(index: Index) -> Iterator[tuple[str, str, str]]:
    """Name, library and class of the parts that are loaded."""
    for name, value in index.items():
        if isinstance(value, list) and value != [None, None] and not name.startswith("_") and name not in UNLOADED:
            yield name, value[0], value[1]


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises BadConfig."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadConfig(f"{path} is missing. Download it, too.") from None
    except OSError as error:
        raise BadConfig(f"{path} cannot be opened ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{path} is not JSON ({str(error) or 'too deep'}). Download it again.") from error
    if not isinstance(found, dict):
        raise BadConfig(f"{path} must hold a JSON object. Received {json.dumps(found)[:80]}.")
    return found


def check_configs(folder: Path, index: Index) -> None:
    """Check the JSON files of all parts. Raises BadConfig."""
    for name, library, kind in parts_of(index):
        if not (folder / name).is_dir():
            raise BadConfig(f"{folder / name} is missing, the folder of a {kind}. Download it, too.")
        for path in sorted((folder / name).glob("*.json")):
            config = read_object(path)
            if path.name in CONFIGS:
                check_values(path, config, types_of(library, kind) if path.name != CONFIGS[2] else {})
        own = own_config(folder / name, kind)
        if own is not None and not own.is_file():
            raise BadConfig(f"{own} is missing, the config of a {kind}. Download it, too.")


def own_config(folder: Path, kind: str) -> Path | None:
    """The config that a part of this class cannot do without, if it is known."""
    if kind.endswith("Scheduler"):
        return folder / "scheduler_config.json"
    if "Tokenizer" in kind or "Processor" in kind or "FeatureExtractor" in kind:
        return None
    return folder / "config.json"


def check_values(path: Path, config: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """Check that values have the kind that the class declares, and that numbers are finite. Raises BadConfig."""
    for key, value in config.items():
        if any(not math.isfinite(number) for number in _numbers(value)):
            raise BadConfig(f"{path}: {key} must be finite. Received {value}.")
        if key in types and not _fits(value, types[key]):
            raise BadConfig(f"{path}: {key} must be {_said(types[key])}. Received {json.dumps(value)[:80]}.")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)
    elif isinstance(value, float):
        yield value


def class_of(library: str, kind: str) -> Any:
    """A class of one of the libraries; None if there is none of that name."""
    package = library if library in LIBRARIES[:2] else f"diffusers.pipelines.{library}"
    return getattr(import_module(package), kind, None)


@cache
def types_of(library: str, kind: str) -> Mapping[str, Any]:
    """The declared types of the keys of a class's config, as far as it declares any."""
    found = class_of(library, kind)
    if found is None:
        return {}
    try:
        if library == "transformers":
            return get_type_hints(found.config_class, localns={"torch": torch})
        return {key: hint for key, hint in get_type_hints(inspect.unwrap(found.__init__)).items() if key != "return"}
    except (AttributeError, NameError, TypeError):  # no config, or names that only type checkers see
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of the kind of a type; null always is, since old configs have it for any default."""
    if value is None or hint is Any:
        return True
    if hint is NoneType:
        return False
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in inner)
    if origin is Literal:
        return any(_fits(value, type(each)) for each in inner)
    kind = origin or hint
    if kind is bool:
        return isinstance(value, bool | int)
    if kind in (int, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str)
    if kind in (tuple, list):
        parts = [part for part in inner if part is not Ellipsis]
        return isinstance(value, list) and (
            not parts or all(any(_fits(v, p) or _deep(v) for p in parts) for v in value)
        )
    if kind is dict:
        return isinstance(value, dict)
    return True


def _deep(value: Any) -> bool:
    """Lists in lists, which annotations often leave out."""
    return isinstance(value, list)


def _said(hint: Any) -> str:
    """A type for people."""
    plain: dict[Any, str] = {int: "a number", float: "a number", bool: "true or false", str: "text", dict: "an object"}
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_said(part) for part in inner if part is not NoneType))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    kind = origin or hint
    return "a list" if kind in (tuple, list) else plain.get(kind, getattr(kind, "__name__", str(kind)))


def culprit(folder: Path, index: Index) -> str | None:
    """Which config, and which key of it, a pipeline cannot be made of: parts are built without weights, one by one.

    A key is named if the part can be built with the class's own default for it, or fails there in another way.
    """
    for name, library, kind in parts_of(index):
        path, found = own_config(folder / name, kind), class_of(library, kind)
        if found is None:
            return f"{folder / INDEX}: {name} is a {kind}, which this version of {library} does not have"
        if path is None:
            continue
        config = read_object(path)
        error = _fails(library, found, config)
        if error is None:
            continue
        without = {key: _fails(library, found, {k: v for k, v in config.items() if k != key}) for key in config}
        named = [key for key, other in without.items() if other is None and not key.startswith("_")]
        changed = [key for key, other in without.items() if other != error and not key.startswith("_")]
        named += sorted(changed, key=lambda key: str(config[key]) not in error)  # the value that it speaks of, if any
        if named:
            return f"{path}: {named[0]} cannot be {json.dumps(config[named[0]])[:80]} ({error})"
        return f"{path}: {error}"
    return None


def _fails(library: str, kind: Any, config: Mapping[str, Any]) -> str | None:
    """Why a part cannot be built of a config; None if it can."""
    values = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        with torch.device("meta"):
            if library == "transformers":
                kind(kind.config_class(**{k: v for k, v in values.items() if k not in ("architectures", "dtype")}))
            else:
                kind.from_config(dict(config))
    except Exception as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None

"""PIE-Bench (Ju et al. 2024, arXiv 2310.01506), the TI2I set that comes with it, and PIE-Bench++ (Huang et al. 2024).

    DIR/mapping_file.json, or mapping_file_ti2i_benchmark.json for TI2I
    DIR/annotation_images/1_change_object_80/1_artificial/1_animal/111000000000.jpg ...

DIR may also be the folder around that (`data`, or that of the archive, PIE-Bench_v1), or the mapping file itself.
Prompts mark what differs by brackets, which are taken off. A mask is a flat list [start, length, start, length, ...] of
runs in the rows of a 512 x 512 image, one after the other, or the same numbers as text; an empty list is an empty mask.
PIE-Bench++ calls the prompts source_prompt and target_prompt, and lists its words: ["cat,dog", "chair,chair"]. It is
also read as Parquet, DIR/1_change_object_80/*.parquet with images inside. An entry
may also have target_path, the image that the edit should make; PIE-Bench has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from promptweave.core.shown import shown
from promptweave.evaluate.edit_pairs import BadData, EditPair, check_names, read_object
from promptweave.evaluate.edit_rows import arrow_module

SIDE = 512  # of all images, in pixels
MAPPINGS = ("mapping_file.json", "mapping_file_ti2i_benchmark.json")
IMAGES = "annotation_images"
KINDS = {
    "0": "random", "1": "change object", "2": "add object", "3": "delete object", "4": "change content",
    "5": "change pose", "6": "change colour", "7": "change material", "8": "change background", "9": "change style",
}  # fmt: skip


def is_pie_bench(path: Path) -> bool:
    """Whether `path` looks like one of the layouts."""
    return _mapping(path) is not None or bool(_tables(path))


def read_pie_bench(path: Path, kinds: Iterable[str] = ()) -> list[EditPair]:
    """The edits of PIE-Bench, in the order of its mapping file or Parquet files. `kinds`: numbers or names of those
    wanted, default all.

    Raises FileNotFoundError for a folder that is none, BadData for a mapping file that breaks its rules.
    """
    mapping, wanted = _mapping(path), {_kind(kind) for kind in kinds}
    if mapping is None and _tables(path):
        pairs = [pair for table in _tables(path) for pair in _of_table(table)]
        return check_names([pair for pair in pairs if not wanted or pair.category in wanted], path)
    if mapping is None:
        raise FileNotFoundError(
            f"PIE-Bench is a folder with {MAPPINGS[0]} (TI2I: {MAPPINGS[1]}) and {IMAGES}/. {path} holds neither. "
            "Give the folder that the archive was unpacked to."
        )
    entries = read_object(mapping)
    if not isinstance(entries, dict):
        raise BadData(f"{mapping} is an object with an entry for each image. Received {shown(entries)}.")
    pairs = [_pair(name, entry, mapping) for name, entry in entries.items()]
    return check_names([pair for pair in pairs if not wanted or pair.category in wanted], mapping)


def without_brackets(prompt: str) -> str:
    """A prompt without the marks of what differs.

    >>> without_brackets("a [rusty] bicycle on the [[road]]")
    'a rusty bicycle on the road'
    """
    return " ".join(prompt.replace("[", "").replace("]", "").split())


def runs_of(given: Any, name: str) -> tuple[int, ...]:
    """The checked runs of a mask, from a list or text. Raises BadData."""
    runs = given.split() if isinstance(given, str) else given
    try:
        found = tuple(int(each) for each in runs)
    except (TypeError, ValueError):
        found = (-1,)
    if len(found) % 2 or any(each < 0 for each in found):
        raise BadData(
            f"A mask is a list of starts and lengths, whole numbers of at least 0. {name} has {shown(given)}."
        )
    return found


def decoded(runs: Sequence[int], side: int = SIDE) -> np.ndarray:
    """A mask, bool [side, side], from its runs; what reaches beyond the image is cut off.

    >>> decoded([1, 2, 7, 9], 3).astype(int).tolist()
    [[0, 1, 1], [0, 0, 0], [0, 1, 1]]
    """
    mask = np.zeros(side * side, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        mask[start : start + length] = True
    return mask.reshape(side, side)


def framed(mask: np.ndarray) -> np.ndarray:
    """The mask with its outermost pixels in it, as the published evaluation reads it, against errors of annotation.

    >>> int(framed(decoded([])).sum())
    2044
    """
    made = mask.copy()
    made[[0, -1]] = made[:, [0, -1]] = True
    return made


def encoded(mask: np.ndarray) -> list[int]:
    """The runs of a mask, bool [side, side].

    >>> encoded(decoded([1, 2, 7, 2], 3))
    [1, 2, 7, 2]
    """
    edges = np.flatnonzero(np.diff(np.pad(mask.ravel(), 1).astype(np.int8))).tolist()
    return [number for start, end in list(pairwise(edges))[::2] for number in (start, end - start)]


def _pair(name: str, entry: Any, mapping: Path) -> EditPair:
    """One entry of the mapping file. TI2I has no masks, words or kinds."""
    prompts = [
        _text(entry, *keys) for keys in (("original_prompt", "source_prompt"), ("editing_prompt", "target_prompt"))
    ]
    path = _text(entry, "image_path")
    if None in (*prompts, path):
        raise BadData(
            f"An entry of {mapping.name} has image_path, original_prompt and editing_prompt. {shown(name)} has "
            f"{shown(list(entry) if isinstance(entry, Mapping) else entry)}."
        )
    kind = str(entry.get("editing_type_id", str(path).partition("_")[0]))
    runs = None if entry.get("mask") is None else runs_of(entry["mask"], name)
    image = entry.get("image_bytes") or mapping.parent / IMAGES / str(path)
    return EditPair(
        name, KINDS.get(kind, ""), without_brackets(str(prompts[0])), without_brackets(str(prompts[1])), image,
        str(entry.get("editing_instruction", "")), _words(entry), None if runs is None else partial(decoded, runs),
        runs is not None, mapping.parent / IMAGES / str(entry["target_path"]) if entry.get("target_path") else None,
    )  # fmt: skip


def _of_table(path: Path) -> list[EditPair]:
    """The edits of a Parquet file of PIE-Bench++; its folder says the kind."""
    pairs: list[EditPair] = []
    for row in arrow_module("pyarrow.parquet").read_table(path).to_pylist():
        image, words = row.get("image") or {}, row.get("blended_words")
        entry = {
            **row, "image_bytes": image.get("bytes"), "image_path": f"{path.parent.name}/{row['id']}",
            "blended_words": re.findall(r"['\"]([^'\"]+)['\"]", words) if isinstance(words, str) else words,
        }  # fmt: skip
        if not isinstance(entry["image_bytes"], bytes):
            raise BadData(f"A row of {path} holds its image. {row['id']} has none. Fetch the file again.")
        pairs.append(_pair(str(row["id"]), entry, path))
    return pairs


def _words(entry: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of source and target that the edit is about; the first two of a text, as the published code reads."""
    listed = entry.get("blended_words")
    if isinstance(listed, list):
        both = [tuple(part.strip() for part in str(each).split(",", 1)) for each in listed]
    else:
        both = [tuple(str(entry.get("blended_word", "")).split()[:2])]
    kept = [pair for pair in both if len(pair) == 2 and all(pair)]
    return tuple(pair[0] for pair in kept), tuple(pair[1] for pair in kept)


def _text(entry: Any, *keys: str) -> str | None:
    found = [entry[key] for key in keys if isinstance(entry, Mapping) and isinstance(entry.get(key), str)]
    return found[0] if found else None


def _kind(kind: str) -> str:
    found = KINDS.get(kind, kind)
    if found not in KINDS.values():
        names = ", ".join(f"{number} ({name})" for number, name in KINDS.items())
        raise BadData(f"The kinds of PIE-Bench are {names}. Received {kind!r}.")
    return found


def _tables(path: Path) -> list[Path]:
    """The Parquet files of PIE-Bench++ at `path`, by their folders."""
    found = [path] if path.suffix == ".parquet" else sorted(path.glob("*/*.parquet")) if path.is_dir() else []
    return [file for file in found if file.parent.name.partition("_")[0] in KINDS]


def _mapping(path: Path) -> Path | None:
    """The mapping file of a data set at `path`."""
    if path.is_file():
        return path if path.name.startswith("mapping_file") and path.suffix == ".json" else None
    for folder in (path, path / "data", *sorted(path.glob("PIE-Bench*"))):
        for name in MAPPINGS:
            if (folder / name).is_file():
                return folder / name
    return None

"""Readers of data sets of edits and of prompts, and `read_data`, which finds the right one.

PIE-Bench has a module of its own. The others, by what lies in the folder:

- TEdBench (Kawar et al. 2023, arXiv 2210.09276): input_list.json and originals/. It has no source prompts: give
  captions.json, {"cat.jpeg": "a photo of a cat"}; otherwise the file's name stands in for one.
- MagicBrush (Zhang et al. 2023, arXiv 2306.10012): edit_sessions.json, images/ID/, and global_descriptions.json with
  the prompts. Its masks let through where the edit may change the image.
- One folder for each edit, EditBench-style (Wang et al. 2023, arXiv 2212.06909): NAME/edit.json with source, target and
  instruction, NAME/source.png, and where there are such mask.png and target.png.
- A table of one's own, edits.csv or any CSV file: columns source, target, and as you like image, mask, goal, name,
  category, instruction, source_words, target_words. Paths are relative to the file.
- Prompts: T2I-CompBench's text files (Huang et al. 2023, arXiv 2307.06350), one a line, and GenEval's
  evaluation_metadata.jsonl (Ghosh et al. 2023, arXiv 2310.11513). These images are generated, not edited.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from promptweave.core.shown import shown
from promptweave.evaluate.edit_pairs import BadData, EditPair, check_names, mask_file, read_object
from promptweave.evaluate.pie_bench import is_pie_bench, read_pie_bench

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
COLUMNS = (
    "source", "target", "image", "mask", "goal", "name", "category", "instruction", "source_words", "target_words"
)  # fmt: skip


def read_data(path: Path | str, kinds: Iterable[str] = ()) -> tuple[str, list[EditPair]]:
    """The name of the data set at `path` and its edits. `kinds`: only these categories.

    Raises FileNotFoundError for a path where nothing is, BadData for files that break the rules of their data set.
    """
    path, kinds = Path(path), tuple(kinds)
    if not path.exists():
        raise FileNotFoundError(f"There is no data set {path}. Check the path.")
    if is_pie_bench(path):
        return "pie", read_pie_bench(path, kinds)
    for name, fits, read in READERS:
        if fits(path):
            pairs = check_names(read(path), path)
            missing = set(kinds) - {pair.category for pair in pairs}
            if missing:
                there = ", ".join(sorted({pair.category for pair in pairs})) or "none"
                raise BadData(f"The kinds of edits of {path} are {there}. Received {', '.join(sorted(missing))}.")
            return name, [pair for pair in pairs if not kinds or pair.category in kinds]
    raise BadData(
        f"{path} is not a data set that can be read: PIE-Bench, TEdBench, MagicBrush, folders with edit.json, a "
        "CSV file, or lists of prompts (.txt, .jsonl). See docs/evaluation.md for their layouts."
    )


def read_tedbench(path: Path) -> list[EditPair]:
    """TEdBench's 100 edits of 40 images."""
    entries = read_object(path / "input_list.json")
    captions = read_object(path / "captions.json") if (path / "captions.json").is_file() else {}
    pairs: list[EditPair] = []
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        image, target = _of(entry, "img_name", path), _of(entry, "target_text", path)
        source = captions.get(image)
        note = "" if source else "The source prompt is the name of the file: the data set has none."
        name = f"{number:03d}-{Path(image).stem}"
        pairs.append(EditPair(name, "", source or _words(image), target, path / "originals" / image, note=note))
    return pairs


def read_magicbrush(path: Path) -> list[EditPair]:
    """MagicBrush's turns, each from the image that people made in the turn before."""
    sessions = read_object(path / "edit_sessions.json")
    prompts = read_object(path / "global_descriptions.json")
    pairs: list[EditPair] = []
    for session, turns in sessions.items():
        folder, said = path / "images" / session, prompts.get(session, {})
        for number, turn in enumerate(turns, 1):
            given, made = _of(turn, "input", path), _of(turn, "output", path)
            source, target = (_of(said, each, path) for each in (given, made))
            mask = partial(mask_file, folder / turn["mask"], transparent=True) if turn.get("mask") else None
            pairs.append(
                EditPair(
                    f"{session}-{number}", f"turn {number}", source, target, folder / given,
                    str(turn.get("instruction", "")), mask=mask, goal=folder / made,
                )
            )  # fmt: skip
    return pairs


def read_folders(path: Path) -> list[EditPair]:
    """A folder for each edit."""
    pairs: list[EditPair] = []
    for file in sorted(path.glob("*/edit.json")):
        entry = read_object(file)
        said = {name: str(entry[name]) for name in ("category", "instruction") if entry.get(name)}
        mask = _picture(file.parent, "mask")
        pairs.append(
            EditPair(
                file.parent.name, said.get("category", ""), _of(entry, "source", file), _of(entry, "target", file),
                _picture(file.parent, "source"), said.get("instruction", ""),
                mask=None if mask is None else partial(mask_file, mask), goal=_picture(file.parent, "target"),
            )
        )  # fmt: skip
    return pairs


def read_table(path: Path) -> list[EditPair]:
    """A CSV file with a header, or the one in a folder."""
    path = path if path.is_file() else _table(path) or path
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        unknown = [name for name in reader.fieldnames or () if name not in COLUMNS]
        if unknown or not {"source", "target"} <= set(reader.fieldnames or ()):
            raise BadData(
                f"A table of edits has the columns source and target, and of the others only {', '.join(COLUMNS[2:])}. "
                f"{path} has {', '.join(reader.fieldnames or ['none'])}."
            )
        return [_line(row, number, path.parent) for number, row in enumerate(reader, 1)]


def read_prompts(path: Path) -> list[EditPair]:
    """Prompts to generate: a text file or a folder of such, one prompt a line; or GenEval's lines of JSON."""
    files = [path] if path.is_file() else [p for p in sorted(path.iterdir()) if p.suffix in (".txt", ".jsonl")]
    pairs: list[EditPair] = []
    for file in files:
        for number, line in enumerate(file.read_text("utf-8-sig").splitlines()):
            if not line.strip():
                continue
            prompt, kind = line.strip(), file.stem
            if file.suffix == ".jsonl":
                try:
                    entry = json.loads(line)
                except ValueError as error:
                    raise BadData(f"{file} has one JSON object a line. Received {shown(line)}.") from error
                prompt, kind = _of(entry, "prompt", file), str(entry.get("tag", kind))
            pairs.append(EditPair(f"{file.stem}-{number:04d}", kind, prompt, ""))
    return pairs


def _line(row: Mapping[str, str | None], number: int, folder: Path) -> EditPair:
    cells = {name: (value or "").strip() for name, value in row.items() if name}
    if not cells.get("source") or not cells.get("target"):
        raise BadData(f"Every line of a table of edits has a source and a target. Line {number} doesn't have both.")
    name = cells.get("name") or f"{number:04d}"
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise BadData(f"The name of an edit is also that of its files: letters, digits, - and _. Received {name!r}.")
    words = [tuple(cells.get(f"{side}_words", "").split()) for side in ("source", "target")]
    paths = {key: folder / cells[key] for key in ("image", "mask", "goal") if cells.get(key)}
    return EditPair(
        name, cells.get("category", ""), cells["source"], cells["target"], paths.get("image"),
        cells.get("instruction", ""), (words[0], words[1]),
        mask=partial(mask_file, paths["mask"]) if "mask" in paths else None, goal=paths.get("goal"),
    )  # fmt: skip


def _of(entry: Any, key: str, where: Path) -> str:
    if not isinstance(entry, Mapping) or not isinstance(entry.get(key), str) or not entry[key].strip():
        raise BadData(f"Each entry of {where} has the text {key}. Received {shown(entry)}.")
    return entry[key].strip()


def _words(image: str) -> str:
    """A prompt from the name of a file.

    >>> _words("dog2_standing.png"), _words("bird-g83440b9c4_1920.jpg")
    ('a photo of dog standing', 'a photo of bird')
    """
    parts = [re.sub(r"\d+$", "", part) for part in re.split(r"[_\W]+", Path(image).stem)]
    return "a photo of " + " ".join(part for part in parts if part and not re.search(r"\d", part))


def _picture(folder: Path, stem: str) -> Path | None:
    return next((folder / f"{stem}{end}" for end in PICTURES if (folder / f"{stem}{end}").is_file()), None)


def _table(path: Path) -> Path | None:
    """The table in a folder, or the path if it is one."""
    if path.is_file():
        return path if path.suffix == ".csv" else None
    found = sorted(path.glob("*.csv"))
    return found[0] if len(found) == 1 else next((each for each in found if each.name == "edits.csv"), None)


def _has_prompts(path: Path) -> bool:
    if path.is_file():
        return path.suffix in (".txt", ".jsonl")
    return any(each.suffix in (".txt", ".jsonl") for each in path.iterdir())


READERS: tuple[tuple[str, Callable[[Path], bool], Callable[[Path], list[EditPair]]], ...] = (
    ("tedbench", lambda path: (path / "input_list.json").is_file(), read_tedbench),
    ("magicbrush", lambda path: (path / "edit_sessions.json").is_file(), read_magicbrush),
    ("folders", lambda path: path.is_dir() and any(path.glob("*/edit.json")), read_folders),
    ("table", lambda path: _table(path) is not None, read_table),
    ("prompts", _has_prompts, read_prompts),
)

"""Readers of ADE20K, RefCOCO, RefCOCO+, RefCOCOg and NYUv2 in the layouts in which they are given out.

ADE20K (ADEChallengeData2016): `images/training/NAME.jpg`, `annotations/training/NAME.png` with 0 for nothing and 1 to
150 for the classes of `objectInfo150.txt`; the same with `validation`.
RefCOCO: `refcoco/instances.json`, `refcoco/refs(unc).p` and `images/mscoco/images/train2014/`. The references are a
pickle of plain dictionaries; it is read without ever importing a name, so it cannot run code. `refs(unc).json` with the
same content is read first.
NYUv2: `nyu_train.txt` and `nyu_test.txt` with a line for each image, its path and that of its depth, a 16-bit PNG in
millimetres; scenes are named by their folders (`bathroom_0001/rgb_00001.jpg`).
"""

from __future__ import annotations

import csv
import json
import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from promptweave.evaluate.edit_pairs import BadData as BadData
from promptweave.perception.samples import IGNORED, Sample

MILLIMETRES = 1000.0
SPLITS = {"train": "training", "val": "validation"}  # of ADE20K
COLLECTIONS = ("refcoco", "refcoco+", "refcocog")


def found(path: Path, what: str) -> Path:
    """The path. Raises BadData if nothing is there."""
    if not path.exists():
        raise BadData(f"{what} is expected at {path}, and nothing is there. Check the folder given with --data.")
    return path


def picture(path: Path) -> np.ndarray:
    """An image file as uint8 [height, width, 3]."""
    with Image.open(found(path, "An image")) as image:
        return np.asarray(image.convert("RGB"))


class ADE20K:
    """Scene parsing with 150 classes; `split`: train or val. Labels are 0 to 149, IGNORED where there is none."""

    def __init__(self, folder: Path | str, split: str = "train") -> None:
        if split not in SPLITS:
            raise BadData(f"ADE20K has the splits {', '.join(SPLITS)}. Received {split!r}.")
        self.folder, name = Path(folder), SPLITS[split]
        images = found(self.folder / "images" / name, f"The split {split} of ADE20K")
        self.images = sorted(images.glob("*.jpg"))
        self.labels = [self.folder / "annotations" / name / f"{path.stem}.png" for path in self.images]
        if not self.images:
            raise BadData(f"{images} should hold .jpg files. It holds none.")
        self.classes: Sequence[str] = self._names()

    def _names(self) -> tuple[str, ...]:
        """The first name of each class, in the order of the labels."""
        path = found(self.folder / "objectInfo150.txt", "The list of classes of ADE20K")
        with path.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        names = [re.split("[,;]", row["Name"])[0].strip() for row in rows if row.get("Name")]
        if not names:
            raise BadData(f"{path} should have a column Name, with tabs between columns. It has none.")
        return tuple(names)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        path = found(self.labels[index], "An annotation")
        with Image.open(path) as image:
            labels = np.asarray(image).astype(np.int64)
        shown = picture(self.images[index])
        if labels.shape != shown.shape[:2]:
            raise BadData(f"{path} is {labels.shape}, and its image {shown.shape[:2]}. Both must have one size.")
        if labels.max() > len(self.classes):
            raise BadData(f"{path} has the label {labels.max()}, and there are {len(self.classes)} classes.")
        return Sample(shown, np.where(labels == 0, IGNORED, labels - 1))


class RefCOCO:
    """Referring expressions; every sentence of a reference is an example. `split`: train, val, testA, testB or test."""

    classes: Sequence[str] = ()

    def __init__(
        self, folder: Path | str, split: str = "train", collection: str = "refcoco", split_by: str = "unc"
    ) -> None:
        if collection not in COLLECTIONS:
            raise BadData(f"collection must be one of {', '.join(COLLECTIONS)}. Received {collection!r}.")
        self.images = Path(folder) / "images" / "mscoco" / "images" / "train2014"
        place = found(Path(folder) / collection, f"The collection {collection}")
        with found(place / "instances.json", "The masks of COCO").open(encoding="utf-8") as file:
            instances = json.load(file)
        self.regions = {one["id"]: one for one in instances["annotations"]}
        self.files = {one["id"]: one for one in instances["images"]}
        references = _references(place, split_by)
        splits = sorted({one["split"] for one in references})
        if split not in splits:
            raise BadData(f"{collection} ({split_by}) has the splits {', '.join(splits)}. Received {split!r}.")
        chosen = [one for one in references if one["split"] == split]
        self.pairs = [(one, sentence["sent"]) for one in chosen for sentence in one["sentences"]]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        reference, phrase = self.pairs[index]
        region, image = self.regions[reference["ann_id"]], self.files[reference["image_id"]]
        size = int(image["height"]), int(image["width"])
        mask = region_mask(region["segmentation"], size)
        return Sample(picture(self.images / image["file_name"]), mask.astype(np.int64), phrase)


class _Plain(pickle.Unpickler):
    """Reads numbers, texts, lists and dictionaries, and imports nothing."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise BadData(
            f"Reference files hold plain lists and dictionaries. Received one that wants {module_name}.{global_name}, "
            "which could run code. Take the file that the data set gives out."
        )


def _references(place: Path, split_by: str) -> list[dict[str, Any]]:
    text = place / f"refs({split_by}).json"
    if text.is_file():
        return json.loads(text.read_text("utf-8"))
    path = found(place / f"refs({split_by}).p", f"The references by {split_by}")
    with path.open("rb") as file:
        try:
            return _Plain(file, encoding="latin1").load()
        except (pickle.UnpicklingError, EOFError, IndexError, KeyError) as error:
            raise BadData(f"{path} cannot be read: {error}. Copy it again.") from error


def region_mask(given: Any, size: tuple[int, int]) -> np.ndarray:
    """A region of COCO as bool [height, width]: polygons, or run lengths as numbers or as COCO's text."""
    height, width = size
    if isinstance(given, dict):
        counts, shape = given["counts"], tuple(given["size"])
        runs = list(_run_lengths(counts) if isinstance(counts, str | bytes) else counts)
        if shape != size or sum(runs) != height * width:
            raise BadData(f"Run lengths of {shape} with {sum(runs)} pixels do not fit an image of {size}.")
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return flat.reshape(width, height).T  # runs go down the columns
    canvas = Image.new("L", (width, height))
    for polygon in given:
        ImageDraw.Draw(canvas).polygon([(x, y) for x, y in zip(polygon[::2], polygon[1::2], strict=True)], fill=1)
    return np.asarray(canvas).astype(bool)


def _run_lengths(text: str | bytes) -> Iterator[int]:
    """COCO's text of run lengths: 5 bits a character from "0" on, the sixth says that more follow; from the fourth
    number on, differences to the one two places before."""
    letters = text if isinstance(text, bytes) else text.encode()
    numbers: list[int] = []
    value = shift = 0
    for letter in letters:
        bits = letter - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(numbers) > 2:
            value += numbers[-2]
        numbers.append(value)
        yield value
        value = shift = 0


class NYUv2:
    """Indoor depth; `split`: train or val (also named test). Depth is in metres, 0 where none was measured."""

    def __init__(self, folder: Path | str, split: str = "train") -> None:
        names = {"train": "nyu_train.txt", "val": "nyu_test.txt", "test": "nyu_test.txt"}
        if split not in names:
            raise BadData(f"NYUv2 has the splits train, val and test. Received {split!r}.")
        self.folder = Path(folder)
        path = found(self.folder / names[split], f"The list of images of the split {split}")
        lines = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
        short = [number for number, line in enumerate(lines, 1) if len(line) < 2]
        if short or not lines:
            what = f"Line {short[0]} has one part." if short else "It is empty."
            raise BadData(f"{path} has an image and a depth map on each line. {what}")
        self.pairs = [(line[0].lstrip("/"), line[1].lstrip("/")) for line in lines]
        self.split = split
        self.classes: Sequence[str] = tuple(sorted({scene_class(name) for name, _ in self.pairs}))  # of the scenes

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        name, answer = self.pairs[index]
        shown = picture(self.folder / name)
        with Image.open(found(self.folder / answer, "A depth map")) as image:
            depth = np.asarray(image).astype(np.float32) / MILLIMETRES
        if depth.shape != shown.shape[:2]:
            raise BadData(f"{answer} is {depth.shape}, and its image {shown.shape[:2]}. Both must have one size.")
        if self.split != "train":
            depth = eigen_crop(depth)
        return Sample(shown, depth, None, scene_class(name))


def scene_class(name: str) -> str:
    """The class of a scene, from the folder of its image.

    >>> scene_class("living_room_0020b/rgb_00001.jpg")
    'living room'
    """
    return re.sub(r"_\d+\w*$", "", Path(name).parent.name).replace("_", " ")


def eigen_crop(depth: np.ndarray) -> np.ndarray:
    """Depth that counts when models are compared (Eigen et al. 2014): rows 45 to 471, columns 41 to 601 of 480 x 640;
    other sizes are left as they are."""
    if depth.shape != (480, 640):
        return depth
    kept = np.zeros_like(depth)
    kept[45:471, 41:601] = depth[45:471, 41:601]
    return kept

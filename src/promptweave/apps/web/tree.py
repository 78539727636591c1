"""The history of a visitor's images: a tree, since edits can be edited further."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from promptweave.editing.recipe import Recipe
from promptweave.editing.recorders import columns
from promptweave.editing.result import Result
from promptweave.maps.word_maps import WordMaps, words_of

THUMBNAIL = 128  # longer side, in pixels


@dataclass(frozen=True, eq=False)
class Node:
    """An image: row `row` of a run. `parent`: the number of the image that it was edited from."""

    number: int
    parent: int | None
    result: Result
    row: int
    model: str

    @property
    def maps(self) -> WordMaps:
        """The word maps of the image."""
        return words_of(self.result, self.row, kept=columns(self.result.sample.run.words[self.row]))

    @property
    def recipe(self) -> Recipe:
        return self.result.recipe

    @property
    def prompt(self) -> str:
        """The prompt of the image."""
        return self.recipe.prompts[self.row]

    @property
    def pixels(self) -> np.ndarray:
        """The image, uint8 [height, width, 3]."""
        return self.result.sample.pictures[self.row, 0]

    @property
    def frame(self) -> Image.Image:
        """The image as the model made it."""
        return Image.fromarray(self.pixels)

    @property
    def picture(self) -> Image.Image:
        """The image; in the original at full size if that is kept."""
        return self.result.picture(self.row)

    @cached_property
    def bytes(self) -> int:
        """Size of the tensors, arrays and full-size images of the run."""
        whole = sum(len(kept.image.getbands()) * kept.image.width * kept.image.height for kept in self.result.kept)
        return weight(self.result.sample) + whole

    @cached_property
    def thumbnail(self) -> str:
        """A thumbnail as a data URL."""
        small, buffer = self.picture.copy(), io.BytesIO()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        small.save(buffer, "WEBP", quality=80)
        return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@dataclass
class Tree:
    """Nodes in order of creation, at most `most` and about `room` bytes; `shown` is on the page, and edits start at
    `base`."""

    most: int = 30
    room: int = 100_000_000
    nodes: dict[int, Node] = field(default_factory=dict[int, Node])
    shown: int | None = None
    base: int | None = None
    past: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])  # (shown, base) before each move
    made: int = 0

    def add(self, result: Result, row: int, model: str, parent: int | None) -> Node:
        """Add an image and show it; beyond the limit, the oldest image without edits is dropped."""
        self.made += 1
        node = Node(self.made, parent, result, row, model)
        self.nodes[node.number] = node
        self.show(node.number, node.number if parent is None else parent)
        while len(self.nodes) > self.most or sum(node.bytes for node in self.nodes.values()) > self.room:
            parents = {other.parent for other in self.nodes.values()} | {self.shown, self.base}
            gone = next((n for n in self.nodes if n not in parents), None)
            if gone is None:
                break
            del self.nodes[gone]
        return node

    def show(self, number: int, base: int | None = None) -> Node:
        """Show an image; edits start at `base`, by default the image that this one was edited from."""
        node = self.nodes[number]
        if self.shown is not None and self.base is not None:
            self.past = [*self.past[1 - 4 * self.most :], (self.shown, self.base)]
        self.shown = number
        self.base = base if base is not None else number if node.parent is None else node.parent
        return node

    def undo(self) -> Node | None:
        """Return to the image shown before; None if there was none."""
        while self.past:
            shown, base = self.past.pop()
            if shown in self.nodes and base in self.nodes:
                self.shown, self.base = shown, base
                return self.nodes[shown]
        return None

    def ordered(self) -> list[tuple[str, Node]]:
        """The number of every image in the tree: 1, 1.1, 1.2, 1.1.1 ..."""
        found: list[tuple[str, Node]] = []

        def walk(parent: int | None, prefix: str) -> None:
            children = [node for node in self.nodes.values() if node.parent == parent]
            for index, node in enumerate(children, 1):
                found.append((f"{prefix}{index}", node))
                walk(node.number, f"{prefix}{index}.")

        walk(None, "")
        return found


def weight(value: Any, seen: set[int] | None = None) -> int:
    """Bytes of the tensors and arrays that an object holds, in its fields and in theirs."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        new, size = storage.data_ptr() not in seen, storage.nbytes()
        seen.add(storage.data_ptr())
        return size if new else 0
    if id(value) in seen or isinstance(value, torch.nn.Module | type):
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(weight(part, seen) for part in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return sum(weight(part, seen) for part in value)
    return sum(weight(part, seen) for part in getattr(value, "__dict__", {}).values())

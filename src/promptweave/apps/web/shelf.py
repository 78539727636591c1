"""A cache of source recordings with a memory budget; the least recently used are dropped first."""

from __future__ import annotations

import json
from collections import OrderedDict
from threading import Lock

from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording

Key = tuple[str, str, int]


def key_of(model: str, recipe: Recipe, row: int) -> Key:
    """The cache key of a recording, equal for all visitors who request the same image."""
    return model, json.dumps(recipe.as_dict(), sort_keys=True), row


class Shelf:
    """At most `budget` bytes of recordings, for all visitors together."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._kept: OrderedDict[Key, Recording] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Key) -> Recording | None:
        """The recording, marked as most recently used."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Key, recording: Recording) -> None:
        """Store a recording if it fits, and drop the least recently used ones beyond the budget."""
        with self._lock:
            self._kept.pop(key, None)
            if recording.bytes > self.budget:
                return
            self._kept[key] = recording
            while self._bytes() > self.budget:
                self._kept.popitem(last=False)

    @property
    def bytes(self) -> int:
        """Total size in bytes."""
        with self._lock:
            return self._bytes()

    def _bytes(self) -> int:
        return sum(recording.bytes for recording in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

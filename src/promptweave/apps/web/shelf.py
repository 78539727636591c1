"""Recordings of sources, kept while there is room: the least recently used goes first."""

from __future__ import annotations

import json
from collections import OrderedDict
from threading import Lock

from promptweave.editing.recipe import Recipe
from promptweave.editing.record import Recording

Key = tuple[str, str, int]


def key_of(model: str, recipe: Recipe, row: int) -> Key:
    """What a recording follows from: the same for everybody who asks for the same picture."""
    return model, json.dumps(recipe.as_dict(), sort_keys=True), row


class Shelf:
    """At most `budget` bytes of recordings, those of all visitors together."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._kept: OrderedDict[Key, Recording] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Key) -> Recording | None:
        """The recording, which is now the most recently used one."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Key, recording: Recording) -> None:
        """Keep it if it fits at all, and drop the oldest until the budget holds."""
        with self._lock:
            self._kept.pop(key, None)
            if recording.bytes > self.budget:
                return
            self._kept[key] = recording
            while self._bytes() > self.budget:
                self._kept.popitem(last=False)

    @property
    def bytes(self) -> int:
        """Size of everything that is kept."""
        with self._lock:
            return self._bytes()

    def _bytes(self) -> int:
        return sum(recording.bytes for recording in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)
